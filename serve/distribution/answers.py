"""A registry's answers, and what failures of the connection mean."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from scoring.errors import RegistryError, UnreachableError
from serve.distribution import faults
from serve.distribution.exchange import (
    CutOffError,
    NotConnectedError,
    ProxyFailedError,
    Raw,
)
from serve.distribution.faults import Passing

if TYPE_CHECKING:
    from types import TracebackType

    from serve.distribution.limits import Limits

PIECE_BYTES = 1 << 18


class Answer:
    """A registry's answer; its body is read as it is asked for.

    Attributes:
        status: HTTP's.
        headers: Names in any case.
        url: What answered.
    """

    def __init__(self, raw: Raw, url: str, host: str, limits: Limits) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self.url = url
        self._raw = raw
        self._host = host
        self._limits = limits

    @property
    def content_type(self) -> str:
        """In lower case, without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def listed(self, name: str) -> str:
        """A header that is a list: all its lines as one (RFC 9110, section 5.3)."""
        return ", ".join(self.headers.get_all(name, []))

    @property
    def length(self) -> int | None:
        """`Content-Length`, where it is one."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises:
            Passing: It breaks off, or comes too slowly.
        """
        start, received = time.monotonic(), 0
        try:
            while piece := self._raw.read(PIECE_BYTES):
                received += len(piece)
                now = time.monotonic()
                if now - start > self._limits.slow_s:
                    self._require_speed(received)
                    start, received = now, 0
                yield piece
            if self._raw.left:
                raise _broken(self._host, "it broke off in the middle of an answer")
        except (NotConnectedError, CutOffError, OSError) as error:
            raise failure(self._host, error) from error

    def read(self, limit: int, what: str) -> bytes:
        """The whole body.

        Raises:
            RegistryError: It is larger than the limit.
            Passing: It breaks off, or comes too slowly.
        """
        body = bytearray()
        with self:
            for piece in self.pieces():
                body += piece
                if len(body) > limit:
                    raise RegistryError(
                        f"{self._host} sends more than {limit} bytes for {what}.",
                        hint="That is no such document: check the registry's address.",
                    )
        return bytes(body)

    def begin(self) -> bytes:
        """The beginning of the body, for a message; it may break off or be slow."""
        body = bytearray()
        with self, contextlib.suppress(Passing):
            for piece in self.pieces():
                body += piece
                if len(body) >= faults.MAX_BODY_BYTES:
                    break
        return bytes(body[: faults.MAX_BODY_BYTES])

    def close(self) -> None:
        """Gives the connection back where nothing, or little, is left to read; else ends it."""
        self._raw.close()

    def _require_speed(self, received: int) -> None:
        if received < self._limits.slow_bytes:
            raise _broken(self._host, f"only {received} bytes came in {self._limits.slow_s:.0f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


def failure(host: str, error: Exception, beyond: str = "") -> Exception:
    """What a failure of the connection means: most pass, a wrong certificate does not.

    Args:
        host: The registry.
        error: What broke.
        beyond: Where the registry has sent the request: its token service, or its storage.
    """
    cause = _root(error)
    if isinstance(error, ProxyFailedError):
        return _by_proxy(host, error, error.reason or _reason(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"its certificate is not believed ({cause.verify_message or cause.reason})"
        return _untrusted(host, reason, beyond)
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return faults.unreachable(host, "its name is not known", beyond)
    silent = isinstance(error, NotConnectedError)
    return Passing(faults.unreachable(host, _reason(cause), beyond), silent=silent)


def _by_proxy(host: str, error: ProxyFailedError, reason: str) -> Exception:
    found = UnreachableError(
        f"The proxy {faults.printable(error.proxy)} does not connect to the registry {host}: "
        f"{faults.printable(reason)}.",
        hint="Check HTTPS_PROXY and HTTP_PROXY (with a login: http://USER:PASSWORD@HOST:PORT, "
        "escaped as in a URL), or name the registry in NO_PROXY.",
    )
    return Passing(found, silent=True)


def _untrusted(host: str, reason: str, beyond: str) -> UnreachableError:
    if beyond:  # what is believed of a registry is not believed of whom it names
        return UnreachableError(
            f"{beyond}, to which the registry {host} sends, cannot be trusted: {reason}.",
            hint="Name its authority's certificate with SSL_CERT_FILE.",
        )
    return UnreachableError(
        f"The registry {host} cannot be trusted: {reason}.",
        hint=f"Put its authority's certificate into /etc/docker/certs.d/{host}/ca.crt, or name "
        "it with SSL_CERT_FILE.",
    )


def _root(error: BaseException) -> BaseException:
    """The first cause: libraries wrap what the system says, sometimes twice."""
    while True:
        inner = error.__cause__ or error.__context__
        inner = inner or next((x for x in error.args if isinstance(x, BaseException)), None)
        if inner is None:
            return error
        error = inner


def _reason(cause: BaseException) -> str:
    if isinstance(cause, socket.gaierror):
        return "its name is not known"
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(cause, TimeoutError):
        return "it takes too long"
    if isinstance(cause, ssl.SSLError):
        return f"TLS fails ({faults.printable(cause.reason or str(cause))})"
    if isinstance(cause, OSError) and cause.strerror:
        return faults.printable(cause.strerror)
    return "the connection broke off"


def _broken(host: str, reason: str) -> Passing:
    return Passing(faults.unreachable(host, reason))
