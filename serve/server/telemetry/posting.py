"""Posts batches to a collector over one connection that is kept, with the standard library alone.

On a thread of its own (`post` waits), which another may interrupt (`close`). An error says what is
wrong with the connection or the answer, and nothing of what was sent: headers hold secrets.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import random
import socket
import ssl
import threading
import zlib
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from scoring.errors import UsageError
from serve.server.telemetry.collectortls import Contexts
from serve.server.telemetry.proxies import proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.telemetry.otlpsettings import Target

_PASSING = frozenset({429, 502, 503, 504})
"""Statuses that OTLP allows to ask again after."""
_OK = range(200, 300)
_FIRST_PAUSE_S, _LEAST_PAUSE_S, _MOST_PAUSE_S = 1.0, 0.1, 3600.0
_JITTER = (0.8, 1.2)
_LEAST_TIMEOUT_S = 0.001
_MOST_ANSWER = 1 << 20
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_KIND = "application/x-protobuf"
_BROKEN = (ConnectionError, http.client.HTTPException)


class SendError(Exception):
    """A batch has not arrived; the message says why, and may be shown."""


class _PassingError(SendError):
    """It may arrive if it is sent again.

    Args:
        reason: What was wrong.
        pause_s: How long to wait before that; None where the collector did not say.
    """

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Poster:
    """Sends bodies to one endpoint.

    Args:
        target: Where to, and how.

    Raises:
        UsageError: A file of its certificates cannot be used.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._contexts = Contexts(target) if target.scheme == "https" else None
        self._closing = threading.Event()
        self._posting = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._path = target.path
        self._headers: dict[str, bytes] = {}

    def post(self, body: bytes) -> bytes:
        """Sends a body, again and again within the timeout if it may arrive.

        Returns:
            What the collector answered; empty where that is no protobuf.

        Raises:
            SendError: It did not arrive.
        """
        try:
            with self._posting:
                return self._post(self._compressed(body))
        finally:
            if self._closing.is_set():
                self._disconnect()

    def close(self) -> None:
        """Ends what is under way, and lets nothing begin; from any thread."""
        self._closing.set()
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):  # past TLS, which is not for two threads
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        if self._posting.acquire(blocking=False):
            self._disconnect()
            self._posting.release()

    def _post(self, body: bytes) -> bytes:
        deadline = monotonic() + self._target.timeout_s
        for attempt in itertools.count():
            try:
                return self._attempt(body, deadline)
            except _PassingError as error:
                pause_s = _pause_s(attempt) if error.pause_s is None else error.pause_s
                if pause_s >= deadline - monotonic() or self._closing.wait(pause_s):
                    raise
                if monotonic() >= deadline:  # it was woken late: the reason is still this one
                    raise
        raise AssertionError  # the count has no end

    def _compressed(self, body: bytes) -> bytes:
        bits = _WINDOW_BITS.get(self._target.compression)
        if bits is None:
            return body
        packer = zlib.compressobj(wbits=bits)
        return packer.compress(body) + packer.flush()

    def _attempt(self, body: bytes, deadline: float) -> bytes:
        kept = self._connection is not None
        try:
            return self._exchange(body, deadline)
        except _PassingError as error:
            # A collector may close a connection that was kept at any time: that is no failure.
            if not kept or not isinstance(error.__cause__, _BROKEN):
                raise
        return self._exchange(body, deadline)

    def _exchange(self, body: bytes, deadline: float) -> bytes:
        """One request and its answer."""
        done = False
        try:
            response = self._ask(body, deadline)
            answer = response.read(_MOST_ANSWER)
            done = response.isclosed() and not response.will_close
        except ssl.SSLCertVerificationError as error:
            raise SendError(f"its certificate is not valid: {error.verify_message}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(_reason(error)) from error
        except ValueError as error:
            raise SendError(type(error).__name__) from error  # its text may show a header
        except UsageError as error:
            raise SendError(error.message) from error
        finally:
            if not done:
                self._disconnect()
        return _judged(response, answer)

    def _ask(self, body: bytes, deadline: float) -> http.client.HTTPResponse:
        self._check_open()
        connection = self._connection or self._connect(deadline)
        self._check_open()  # while there was no socket yet, nobody could interrupt it
        connection.sock.settimeout(_left(deadline))
        connection.response_class = _timed(deadline)  # type: ignore[assignment]
        connection.request("POST", self._path, body, self._headers)
        return connection.getresponse()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise SendError("the server ends")

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        """Opens a connection, to the collector or to a proxy."""
        target = self._target
        headers = {"content-type": _KIND, **target.headers}
        if target.compression != "none":
            headers["content-encoding"] = target.compression
        proxy = proxy_for(target.scheme, target.host)
        at = (proxy.host, proxy.port) if proxy else (target.host, target.port)
        connection: http.client.HTTPConnection
        if self._contexts is not None:
            connection = http.client.HTTPSConnection(*at, context=self._contexts.current())
            if proxy:
                connection.set_tunnel(target.host, target.port, dict(proxy.headers))
        else:
            connection = http.client.HTTPConnection(*at)
            headers.update(proxy.headers if proxy else {})
        whole = f"http://{target.authority}{target.path}"
        self._path = whole if proxy and self._contexts is None else target.path
        self._headers = {name: value.encode() for name, value in headers.items()}
        connection.timeout = _left(deadline)
        connection.response_class = _timed(deadline)  # type: ignore[assignment]
        self._connection = connection
        connection.connect()
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Timed(io.RawIOBase):
    """Reads from a socket until a time, however slowly the bytes come."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Door:
    """What a response wants of a socket."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._timed = _Timed(sock, deadline)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(self._timed)


def _timed(deadline: float) -> Callable[..., http.client.HTTPResponse]:
    """Makes responses that are read until a time."""

    def make(sock: socket.socket, *rest: Any, **more: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Door(sock, deadline), *rest, **more)  # type: ignore[arg-type]

    return make


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return max(left, _LEAST_TIMEOUT_S)


def _judged(response: http.client.HTTPResponse, answer: bytes) -> bytes:
    status = response.status
    if status in _OK:
        kind = response.headers.get_content_type()
        return answer if kind == _KIND else b""
    # Not in its own words, which may be anything.
    reason = f"{status} {http.client.responses.get(status, '')}".strip()
    if status in _PASSING:
        raise _PassingError(reason, retry_after_s(response.headers.get("retry-after", "")))
    raise SendError(reason)


def retry_after_s(value: str) -> float | None:
    """The seconds of a `Retry-After`, which may be a date; None where it is neither."""
    value = value.strip()
    if value.isdecimal() and value.isascii():
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time()
    return min(max(seconds, _LEAST_PAUSE_S), _MOST_PAUSE_S)


def _pause_s(attempt: int) -> float:
    return _FIRST_PAUSE_S * 2.0**attempt * random.uniform(*_JITTER)  # noqa: S311 - no secret


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
