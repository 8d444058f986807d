"""HTTP for fetching: one GET or HEAD, with redirects, a registry's token, and a hard stop.

The standard library's client, since a small device has room for one TLS stack only.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Self
from urllib.parse import urlencode, urljoin, urlsplit

from edge.agent.throttle import Stop
from edge.protocol.messages import Source
from scoring.errors import (
    FieldpostError,
    RegistryBusyError,
    RegistryDeniedError,
    RegistryError,
    UnreachableError,
)

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_FIELD: Final = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_COUNT: Final = re.compile(r"\d{1,18}", re.ASCII)
_MOST_TOKEN_BYTES: Final = 256 * 1024
_LONGEST_RETRY_AFTER_S: Final = 3600.0


class Limits(NamedTuple):
    """What fetching puts up with.

    Attributes:
        connect_s: For a connection, with its TLS.
        read_s: Without a single byte.
        redirects: In a row.
        least_rate: Bytes a second, on average over `slow_s`; below, another source is asked.
        slow_s: See `least_rate`.
        first_wait_s: Before the second round of all sources; then it doubles.
        longest_wait_s: Between rounds.
        document_bytes: The most of a manifest or a configuration.
    """

    connect_s: float = 15.0
    read_s: float = 30.0
    redirects: int = 5
    least_rate: float = 256.0
    slow_s: float = 60.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    document_bytes: int = 4 << 20


class PassingError(Exception):
    """A source failed in a way that may pass.

    Attributes:
        error: What to say if it does not.
        after_s: The source asked not to come back before.
    """

    def __init__(self, error: FieldpostError, after_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_s = after_s


class Answer:
    """The answer to a request. Its body is read piece by piece, or the connection is given up."""

    def __init__(self, web: Web, key: _Key, link: _Link, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self._web = web
        self._key = key
        self._link = link
        self._answer = answer

    def header(self, name: str) -> str:
        """A header; empty for none."""
        return self._answer.headers.get(name, "")

    @property
    def length(self) -> int | None:
        """Of the body, where it is told."""
        text = self.header("Content-Length")
        return int(text) if _COUNT.fullmatch(text) else None

    def read(self, most: int) -> bytes:
        """What has come, at most so much; empty at the end.

        Raises:
            PassingError: The connection broke.
        """
        try:
            piece = self._answer.read1(most)
            if not piece and not self._answer.isclosed():
                piece = self._answer.read(most)  # a chunk's end, or the end of it all
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(self._key, error) from error
        return piece

    def read_all(self, most: int) -> bytes | None:
        """The whole body; None where it is larger."""
        pieces, size = [], 0
        while piece := self.read(65536):
            size += len(piece)
            if size > most:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def wake(self) -> None:
        """Breaks the connection, from another thread."""
        self._link.wake()

    def close(self) -> None:
        """Ends the answer; a connection whose body was read to its end is used again."""
        whole = self._answer.isclosed() and not self._answer.will_close
        if whole:
            self._web.give_back(self._key, self._link)
        else:
            self._answer.close()
            self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Key(NamedTuple):
    """What connections are told apart by."""

    scheme: str
    host: str
    port: int
    kind: str


class _Link:
    """A connection that another thread can break."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self.used = False
        self._socket: socket.socket | None = None

    def connect(self, read_s: float) -> None:
        """Connects, unless it is."""
        if self.connection.sock is None:
            self.connection.connect()
        # The connection forgets its socket as soon as an answer is said to be the last.
        self._socket = self.connection.sock
        if self._socket is not None:
            self._socket.settimeout(read_s)

    def wake(self) -> None:
        """Ends whatever waits for it."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.connection.close()


class Web:
    """Requests to sources; any number of threads may use it.

    Args:
        contexts: Kind of source to its TLS context: `controller` with the device's certificate and
            its authority, `registry` with those that the system trusts (the default).
        logins: Host of a registry to user and password.
        limits: See `Limits`.
    """

    def __init__(
        self,
        *,
        contexts: Mapping[str, ssl.SSLContext] | None = None,
        logins: Mapping[str, tuple[str, str]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._contexts = dict(contexts or {})
        self._logins = dict(logins or {})
        self._tokens: dict[str, str] = {}
        self._idle: dict[_Key, _Link] = {}
        self._lock = threading.Lock()

    def ask(
        self,
        source: Source,
        path: str,
        *,
        stop: Stop,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Asks a source, and follows it to where it sends us.

        Args:
            source: The repository.
            path: Below its URL.
            stop: Breaks off.
            method: GET or HEAD.
            headers: Of the request.

        Raises:
            PassingError: Nothing answers, or it is busy.
            RegistryDeniedError: It wants another identity than this device's.
            RegistryError: It answers with what is no answer.
            StoppedError: `stop` was set.
        """
        url = f"{source.url.rstrip('/')}/{path}"
        sent = {"Accept-Encoding": "identity", "User-Agent": "fieldpost-agent", **(headers or {})}
        answer = self._followed(source, method, url, sent, self._tokens.get(source.url), stop)
        if answer.status == _UNAUTHORIZED and source.kind == "registry":
            challenge = answer.header("WWW-Authenticate")
            _finish(answer)
            token = self._authorization(source, challenge, stop)
            answer = self._followed(source, method, url, sent, token, stop)
        return self._checked(source, answer)

    def close(self) -> None:
        """Ends the connections that wait."""
        with self._lock:
            links, self._idle = list(self._idle.values()), {}
        for link in links:
            link.close()

    def give_back(self, key: _Key, link: _Link) -> None:
        """Keeps a connection for the next request."""
        link.used = True
        with self._lock:
            old = self._idle.pop(key, None)
            self._idle[key] = link
        if old is not None:
            old.close()

    def _checked(self, source: Source, answer: Answer) -> Answer:
        host = urlsplit(source.url).netloc
        status = answer.status
        if status in _BUSY:
            after_s = _retry_after(answer.header("Retry-After"))
            _finish(answer)
            text = f"{host} answers with status {status}."
            raise PassingError(RegistryBusyError(text, hint="It is tried again."), after_s)
        if status in {_UNAUTHORIZED, _FORBIDDEN}:
            _finish(answer)
            self._tokens.pop(source.url, None)
            raise RegistryDeniedError(
                f"{host} does not give this device what it asks for (status {status}).",
                hint="Enrol the device again, or give it a login for that registry.",
            )
        return answer

    # -- redirects

    def _followed(
        self,
        source: Source,
        method: str,
        url: str,
        headers: Mapping[str, str],
        token: str | None,
        stop: Stop,
    ) -> Answer:
        for _ in range(self.limits.redirects + 1):
            own = _origin(url) == _origin(source.url)
            sent = {**headers, **({"Authorization": token} if token and own else {})}
            answer = self._once(source.kind if own else "registry", method, url, sent, stop)
            if answer.status not in _REDIRECTS:
                return answer
            target = answer.header("Location")
            _finish(answer)
            url = _redirected(url, target)
        raise RegistryError(
            f"{urlsplit(source.url).netloc} sends requests from one address to another without "
            "end.",
            hint="Check the source's address, and the proxy that may stand before it.",
        )

    # -- the token of a registry

    def _authorization(self, source: Source, challenge: str, stop: Stop) -> str:
        """The value of `Authorization` that a registry wants."""
        scheme, _, rest = challenge.partition(" ")
        login = self._logins.get(urlsplit(source.url).netloc)
        basic = "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else ""
        fields = dict(_FIELD.findall(rest))
        if scheme.lower() == "bearer" and fields.get("realm"):
            found = "Bearer " + self._token(source, fields, basic, stop)
        elif scheme.lower() == "basic" and basic:
            found = basic
        else:
            raise _no_login(source)
        self._tokens[source.url] = found
        return found

    def _token(self, source: Source, fields: dict[str, str], basic: str, stop: Stop) -> str:
        realm = fields.pop("realm")
        _require_no_downgrade(source.url, realm)
        query = urlencode({k: v for k, v in fields.items() if k in {"service", "scope"}})
        headers = {"Authorization": basic} if basic else {}
        url = f"{realm}{'&' if '?' in realm else '?'}{query}"
        with self._once("registry", "GET", url, headers, stop) as answer:
            body = answer.read_all(_MOST_TOKEN_BYTES) if answer.status not in _REDIRECTS else None
        if answer.status in _BUSY:
            raise PassingError(RegistryBusyError(f"{realm} answers with {answer.status}."))
        try:
            document = json.loads(body or b"")
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if answer.status >= http.HTTPStatus.BAD_REQUEST or not isinstance(token, str):
            raise _no_login(source)
        return token

    # -- one request

    def _once(
        self, kind: str, method: str, url: str, headers: Mapping[str, str], stop: Stop
    ) -> Answer:
        key, target = _parts(url, kind)
        while True:
            link = self._link(key)
            try:
                with stop.waking(link.wake):
                    answer = self._exchange(link, method, target, headers)
                return Answer(self, key, link, answer)
            except (OSError, http.client.HTTPException, ValueError) as error:
                link.close()
                stop.check()
                if not link.used:  # one that had waited may just have been ended
                    raise _broken(key, error) from error
            except BaseException:
                link.close()
                raise

    def _link(self, key: _Key) -> _Link:
        with self._lock:
            idle = self._idle.pop(key, None)
        if idle is not None:
            return idle
        connect_s = self.limits.connect_s
        if key.scheme == "http":
            return _Link(http.client.HTTPConnection(key.host, key.port, timeout=connect_s))
        context = self._contexts.get(key.kind) or ssl.create_default_context()
        return _Link(
            http.client.HTTPSConnection(key.host, key.port, timeout=connect_s, context=context)
        )

    def _exchange(
        self, link: _Link, method: str, target: str, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        link.connect(self.limits.read_s)
        link.connection.request(method, target, headers=dict(headers))
        return link.connection.getresponse()


def _finish(answer: Answer) -> None:
    """Reads a short body to its end, so that its connection can be used again."""
    with answer, contextlib.suppress(PassingError):
        answer.read_all(_MOST_TOKEN_BYTES)


def _parts(url: str, kind: str) -> tuple[_Key, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _no_address(url) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _no_address(url)
    default = http.client.HTTPS_PORT if parts.scheme == "https" else http.client.HTTP_PORT
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise _no_address(url)
    return _Key(parts.scheme, parts.hostname, port or default, kind), target


def _origin(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _no_address(url) from error
    return parts.scheme, parts.netloc


def _redirected(url: str, target: str) -> str:
    try:
        new = urljoin(url, target)
    except ValueError as error:
        raise _no_address(target) from error
    if not target:
        raise _no_address(url)
    _require_no_downgrade(url, new)
    return new


def _require_no_downgrade(url: str, new: str) -> None:
    if urlsplit(url).scheme == "https" and urlsplit(new).scheme != "https":
        raise RegistryError(
            f"{urlsplit(url).netloc} sends this device from HTTPS to an address without it.",
            hint="Check the source's address, and the proxy that may stand before it.",
        )


def _retry_after(text: str) -> float:
    if _COUNT.fullmatch(text):
        return min(float(text), _LONGEST_RETRY_AFTER_S)
    with contextlib.suppress(ValueError, TypeError):
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        return min(max(0.0, seconds), _LONGEST_RETRY_AFTER_S)
    return 0.0


def _broken(key: _Key, error: Exception) -> PassingError:
    reason = str(error) or type(error).__name__
    found = UnreachableError(
        f"{key.host}:{key.port} cannot be reached, or breaks off: {reason}.",
        hint="It is tried again by itself.",
        where=f"{key.scheme}://{key.host}:{key.port}",
    )
    return PassingError(found)


def _no_address(url: str) -> RegistryError:
    return RegistryError(
        f"{url[:200]!a} is no address that can be asked.",
        hint="Sources are https:// or http:// URLs of repositories.",
    )


def _no_login(source: Source) -> RegistryDeniedError:
    return RegistryDeniedError(
        f"{urlsplit(source.url).netloc} wants a login that this device does not have.",
        hint="Give the device a login for that registry.",
    )
