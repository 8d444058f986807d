"""The access log: a line of JSON for each request.

A line is put together from pieces that are made once (for a connection, a path, a channel) and
numbers. It never holds a credential: no header but the user agent and the request's ids is looked
at, and of a query the values of keys that look like secrets are blanked.
"""

from __future__ import annotations

import re
import time
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

import orjson

from scoring.errors import UsageError
from serve.server.telemetry import context
from serve.server.telemetry.logfile import LogFile
from serve.server.telemetry.statuses import GRPC, code_of

if TYPE_CHECKING:
    from serve.server.telemetry.channel import Channel, Details
    from serve.server.telemetry.context import Trace

_BATCH = 512
_MOST_PIECES = 1024
_LONG_TARGET = 512
_LONGEST_PATH = 2048
_LONGEST_VALUE = 256
_PLAIN = re.compile(rb"[ !#-\[\]-~]*\Z")
_SECRET = re.compile(
    r"(?i)key|token|secret|passw|pwd|auth|cred|sig\Z|signature|session|\Asas\Z|\Acode\Z|jwt"
)
_REQUEST_IDS = (b"x-request-id", b"x-ms-client-request-id", b"x-ms-request-id")
_PARENT = b"traceparent"
_LOOKED_AT = frozenset({b"user-agent", _PARENT, *_REQUEST_IDS})
# One more than a thousand: the product of a fraction may be rounded up.
_THOUSANDTHS = [*(b"%03d" % number for number in range(1000)), b"999"]


class AccessLog:
    """Puts lines together on the event loop's thread, and hands them over in batches.

    Args:
        file: Where they go.
    """

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._lines: list[bytes] = []
        self._paths: dict[tuple[bytes, bytes], bytes] = {}
        self._who: dict[tuple[bytes, str], bytes] = {}
        self._second = -1
        self._date = b""
        self._offset = 0.0
        self._set_clock()

    @classmethod
    def open(cls, path: str) -> AccessLog:
        """A log in a file, or on standard error (`-`).

        Raises:
            UsageError: The file cannot be opened.
        """
        try:
            return cls(LogFile(path))
        except OSError as error:
            raise UsageError(
                f"The access log {path} cannot be opened: {error.strerror}.",
                hint="Give a file in a folder that is there, or '-' for standard error.",
                where="access_log",
            ) from error

    @property
    def written(self) -> int:
        """Lines that are out."""
        return self._file.written

    @property
    def dropped(self) -> int:
        """Lines that are lost."""
        return self._file.dropped

    def tell(
        self,
        channel: Channel,
        status: int,
        begun: float,
        ended: float,
        size_in: int,
        size_out: int,
        details: Details,
    ) -> None:
        """Adds the line of a request that has been answered."""
        now = ended + self._offset
        second = int(now)
        if second != self._second:
            self._set_second(second)
        microseconds = int((ended - begun) * 1e6)
        method, target = details.method, details.target
        self._lines.append(
            b'{"time":"%b.%bZ","client":%b%b%b,"status":%d,"bytes_in":%d,"bytes_out":%d,'
            b'"duration_ms":%d.%b%b}\n'
            % (
                self._date,
                _THOUSANDTHS[int((now - second) * 1000)],
                details.client,
                self._paths.get((method, target)) or self._path(method, target),
                channel.prefix or _prefix(channel),
                status,
                size_in,
                size_out,
                microseconds // 1000,
                _THOUSANDTHS[microseconds % 1000],
                self._rest(channel, status, details),
            )
        )
        if len(self._lines) >= _BATCH:
            self._hand_over()

    def flush(self) -> None:
        """Hands over what there is; call it at each tick."""
        self._set_clock()
        if self._lines:
            self._hand_over()

    def close(self) -> None:
        """Writes what is left."""
        self.flush()
        self._file.close()

    def _hand_over(self) -> None:
        lines, self._lines = self._lines, []
        self._file.put(lines)

    def _set_clock(self) -> None:
        """The clock may be set while the server runs; the hot path reads only one."""
        self._offset = time.time() - perf_counter()

    def _set_second(self, second: int) -> None:
        self._second = second
        self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()

    def _path(self, method: bytes, target: bytes) -> bytes:
        piece = b',"method":%b,"path":%b' % (quoted(method), quoted(blanked(target)))
        if len(target) <= _LONG_TARGET:
            if len(self._paths) >= _MOST_PIECES:
                self._paths.clear()
            self._paths[method, target] = piece
        return piece

    def _rest(self, channel: Channel, status: int, details: Details) -> bytes:
        """What not every line has."""
        agent = b""
        found: dict[bytes, bytes] | None = None
        for name, value in details.headers:
            if name in _LOOKED_AT:
                if name == b"user-agent":
                    agent = value
                else:
                    found = found or {}
                    found.setdefault(name, value)
        who = agent, details.principal
        rest = self._who.get(who)
        if rest is None:
            rest = self._new_who(*who)
        trace = details.trace
        if found is not None or trace is not None:
            # The id of a trace that nobody keeps leads nowhere.
            kept = trace if trace is not None and (trace.sampled or trace.parent) else None
            rest += _identities(found or {}, kept)
        if details.error:
            rest += b',"error":%b' % quoted(details.error.encode())
        if channel.protocol == GRPC:
            rest += b',"code":"%b"' % code_of(GRPC, status).encode()
        return rest

    def _new_who(self, agent: bytes, principal: str) -> bytes:
        piece = b""
        if agent:
            piece += b',"user_agent":%b' % quoted(agent[:_LONGEST_VALUE])
        if principal:
            piece += b',"principal":%b' % quoted(principal.encode("utf-8", "replace"))
        if len(agent) <= _LONGEST_VALUE:
            if len(self._who) >= _MOST_PIECES:
                self._who.clear()
            self._who[agent, principal] = piece
        return piece


def quoted(text: bytes) -> bytes:
    """Text from a client as a JSON string, whatever bytes it has."""
    if _PLAIN.match(text):
        return b'"%b"' % text
    return orjson.dumps(text.decode("utf-8", "replace"))


def blanked(target: bytes) -> bytes:
    """A request target as it may be logged: path and query, without secrets, and not too long."""
    if not target.startswith(b"/") and b"://" in target:  # it may begin with a password
        rest = target.partition(b"://")[2]
        target = rest[rest.find(b"/") :] if b"/" in rest else b"/"
    path, mark, query = target.partition(b"?")
    if mark:
        path += mark + b"&".join(_blanked_pair(pair) for pair in query.split(b"&"))
    return path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH] + b"..."


def _blanked_pair(pair: bytes) -> bytes:
    name, mark, _ = pair.partition(b"=")
    if mark and _SECRET.search(unquote_plus(name.decode("latin-1"))):
        return name + b"=***"
    return pair


def _prefix(channel: Channel) -> bytes:
    """The constant part of a channel's lines."""
    known = {"protocol": channel.protocol, "model": channel.model, "version": channel.version}
    pairs = [
        b',"%b":%b' % (key.encode(), quoted(value.encode("utf-8", "replace")))
        for key, value in known.items()
        if value
    ]
    channel.prefix = b"".join(pairs)
    return channel.prefix


def _identities(found: dict[bytes, bytes], trace: Trace | None) -> bytes:
    rest = b""
    request_id = next((found[name] for name in _REQUEST_IDS if name in found), b"")
    if request_id:
        rest += b',"request_id":%b' % quoted(request_id[:_LONGEST_VALUE])
    trace_id = f"{trace.trace_id:032x}" if trace else context.trace_id(found.get(_PARENT, b""))
    if trace_id:
        rest += b',"trace_id":"%b"' % trace_id.encode()
    return rest
