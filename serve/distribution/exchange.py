"""Requests and answers over the standard library's HTTP, on connections that are kept.

Nothing is read before it is asked for, nothing is followed or repeated by itself.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import ssl

    from serve.distribution.limits import Limits

Content = bytes | Iterable[bytes | memoryview] | None
# What a URL may hold besides letters and digits: everything else is escaped.
_URL = "%/:?#[]@!$&'()*+,;=~-._"
_SHORT_BYTES = 4 << 10


class NotConnectedError(Exception):
    """There is no connection: nothing was asked."""


class ProxyFailedError(NotConnectedError):
    """The proxy before a host does not connect to it.

    Args:
        proxy: Its host and port.
        reason: What it says; empty where it says nothing.
    """

    def __init__(self, proxy: str, reason: str = "") -> None:
        super().__init__(reason)
        self.proxy = proxy
        self.reason = reason


class CutOffError(Exception):
    """A connection broke, or what came over it is not HTTP."""


class Headers(Protocol):
    """Of an answer; names in any case."""

    def get(self, name: str, default: str, /) -> str:
        """A header, or the default."""
        ...

    def get_all(self, name: str, default: list[str], /) -> list[str]:
        """Each line of a header that may come more than once, or the default."""
        ...


class Raw(Protocol):
    """An answer as it comes. Its methods raise OSError and CutOffError."""

    @property
    def status(self) -> int:
        """HTTP's."""
        ...

    @property
    def headers(self) -> Headers:
        """Names in any case."""
        ...

    @property
    def left(self) -> int | None:
        """How many bytes are still to come; None where nobody knows."""
        ...

    def read(self, size: int) -> bytes:
        """What is there of the body, at most `size`; nothing at its end."""
        ...

    def close(self) -> None:
        """Keeps the connection where nothing, or little, is left to read; else ends it."""
        ...


class Exchange:
    """Connections to any number of hosts; threads may share it.

    Args:
        limits: Times and numbers.
        tls: What is believed of a host.
    """

    def __init__(self, limits: Limits, tls: Callable[[str], ssl.SSLContext]) -> None:
        self._limits = limits
        self._tls = tls
        self._lock = threading.Lock()
        self._closed = False
        self._idle: dict[_Key, list[_Connection]] = defaultdict(list)
        weakref.finalize(self, _end, self._idle)  # where nobody closes it

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: Content) -> Raw:
        """One request, and what comes back for it.

        Raises:
            ValueError: The URL, or a header, cannot be sent.
            NotConnectedError: Nothing answers there.
            CutOffError, OSError: The connection breaks.
        """
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError(f"{url!r} names no host")
        key = _Key((parts.scheme, parts.hostname, parts.port))
        target = quote(parts._replace(scheme="", netloc="", fragment="").geturl(), safe=_URL)
        connection = self._connect(key)
        try:
            response = self._send(connection, method, target or "/", headers, body)
        except BaseException:
            connection.close()
            raise
        return _Answer(response, connection, lambda: self._keep(key, connection))

    def close(self) -> None:
        """Ends the connections that nobody uses; those in use end with their answers."""
        with self._lock:
            self._closed = True
            _end(self._idle)

    def _connect(self, key: _Key) -> _Connection:
        with self._lock:
            idle = self._idle[key]
            while idle:
                connection = idle.pop()
                if _is_alive(connection):
                    return connection
                connection.close()
        scheme, host, port = key
        made = _Secure(host, port, self._tls(host)) if scheme == "https" else _Plain(host, port)
        try:
            made.timeout = self._limits.connect_s
            made.connect()
        except OSError as error:
            made.close()
            raise NotConnectedError(str(error)) from error
        return made

    def _send(
        self,
        connection: _Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Content,
    ) -> http.client.HTTPResponse:
        try:
            _wait(connection, self._limits.connect_s)
            # Who answers before all is read may end the connection: the answer counts.
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, target, body=cast("Any", body), headers=headers)
            _wait(connection, self._limits.read_s)
            return connection.getresponse()
        except http.client.InvalidURL as error:
            raise ValueError(str(error)) from error
        except http.client.HTTPException as error:
            raise CutOffError(str(error)) from error

    def _keep(self, key: _Key, connection: _Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle[key]) < self._limits.threads * 2:
                self._idle[key].append(connection)
                return
        connection.close()


class _Key(tuple[str, str, int | None]):
    """Scheme, host and port: what connections have in common."""

    __slots__ = ()


class _Answer:
    """An answer on a connection, which is kept for the next request where that can be."""

    def __init__(
        self, response: http.client.HTTPResponse, connection: _Connection, keep: Callable[[], None]
    ) -> None:
        self.status = response.status
        self.headers = cast("Headers", response.headers)
        self._response = response
        self._connection = connection
        self._keep = keep
        self._closed = False

    @property
    def left(self) -> int | None:
        if self._response.chunked:
            return 0 if self._response.isclosed() else None
        return self._response.length

    def read(self, size: int) -> bytes:
        try:
            return self._response.read1(size)
        except http.client.HTTPException as error:
            raise CutOffError(str(error)) from error

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        kept = not self._response.will_close and self._is_done()
        self._response.close()
        if kept:
            self._keep()
        else:
            self._connection.close()

    def _is_done(self) -> bool:
        """Whether all is read, if need be now."""
        left = self.left
        if left and left <= _SHORT_BYTES:
            try:
                while left and self.read(left):
                    left = self.left
            except (OSError, CutOffError):
                return False
        return left == 0


class _Plain(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _open(self.host, self.port, self.timeout)


class _Secure(http.client.HTTPSConnection):
    def __init__(self, host: str, port: int | None, context: ssl.SSLContext) -> None:
        super().__init__(host, port, context=context)
        self._tls = context

    def connect(self) -> None:
        sock = _open(self.host, self.port, self.timeout)
        try:
            self.sock = self._tls.wrap_socket(sock, server_hostname=self.host.rstrip("."))
        except BaseException:
            sock.close()
            raise


_Connection = _Plain | _Secure


def _open(host: str, port: int, timeout_s: float | None) -> socket.socket:
    # Bytes are taken as they are: text would bring Python's tables for names in all scripts.
    name = host.encode("ascii") if host.isascii() else host.encode("idna")
    sock = socket.create_connection((name, port), timeout_s)  # type: ignore[arg-type]
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _end(connections: dict[_Key, list[_Connection]]) -> None:
    for each in connections.values():
        while each:
            each.pop().close()


def _wait(connection: _Connection, seconds: float) -> None:
    if connection.sock is not None:
        connection.sock.settimeout(seconds)


def _is_alive(connection: _Connection) -> bool:
    """Whether a connection is silent: one that the other side has ended has that to read."""
    if connection.sock is None:
        return False
    waiting = select.poll()
    waiting.register(connection.sock, select.POLLIN)
    return not waiting.poll(0)
