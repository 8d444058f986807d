"""Requests to one registry: scheme, login, redirects, and another try of what may pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urljoin, urlsplit, urlunsplit

from scoring.errors import RegistryError, UnreachableError
from serve.distribution import faults
from serve.distribution.answers import Answer
from serve.distribution.connections import Body, Connections
from serve.distribution.credentials import Logins
from serve.distribution.faults import Passing
from serve.distribution.hosts import Hosts, Place, Scheme
from serve.distribution.limits import DEFAULT, Limits
from serve.distribution.retries import persist
from serve.distribution.tokens import Authorizer, Scopes

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD = frozenset({307, 308})
_PORTS = {"http": 80, "https": 443}
_LONGEST_RETRY_AFTER_S = 3600.0
_OTHER_SCHEME = (b"https", b"http request")
_UNAUTHORIZED = 401


class Transport:
    """Requests to one registry; any number of threads may use it.

    Args:
        place: The registry (the repository finds its login).
        hosts: How registries are reached from this machine.
        logins: The user's logins.
        limits: See `Limits`.
    """

    def __init__(
        self,
        place: Place,
        *,
        hosts: Hosts | None = None,
        logins: Logins | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        self.place = place
        self.host = place.reference.registry
        self.limits = limits
        self.known = False
        self._hosts = hosts or Hosts()
        self._logins = logins or Logins()
        self._connections = Connections(place, self._hosts, limits)
        self._lock = threading.Lock()
        self._scheme: Scheme | None = None
        self._failed: Passing | UnreachableError | None = None
        self._authorizer = Authorizer(
            self.host,
            lambda: self._logins.find(place.reference),
            self._exchange,
            secure=lambda: self._scheme != "http",
        )

    def send(
        self,
        method: str,
        path: str,
        *,
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        expected: Iterable[int] = (200,),
        what: str,
        again: bool = True,
    ) -> Answer:
        """Sends a request until it is answered, or does not get better.

        Args:
            method: HTTP's.
            path: From `/v2/` on, or the whole URL that the registry gave before.
            scopes: What for, to a token service.
            headers: Of the request.
            body: Bytes, or what gives them anew for each try; then with `Content-Length`.
            expected: The statuses that are returned; all others are errors.
            what: Its object, for messages.
            again: Whether it is tried again by itself; else `Passing` is raised.

        Raises:
            RegistryDeniedError: There is no login, or it is refused.
            RegistryBusyError: It still fails after a while.
            RegistryError: The answer is none of the protocol.
            NotFoundError: 404, where that is not expected.
            UnreachableError: Nothing answers.
        """
        wanted = frozenset(expected)

        def attempt() -> Answer:
            url = urljoin(self._base(), path)
            answer = self._authorized(method, url, scopes, dict(headers or {}), body)
            return self._check(answer, wanted, what)

        if not again:
            return attempt()
        return persist(attempt, self.limits, known=lambda: self.known)

    def close(self) -> None:
        """Ends all connections."""
        self._connections.close()

    def _check(self, answer: Answer, wanted: frozenset[int], what: str) -> Answer:
        if answer.status in wanted:
            return answer
        body = answer.begin()
        error = faults.refusal(self.host, what, answer.status, body, answer.content_type)
        if answer.status in faults.BUSY:
            raise Passing(error, after_s=_retry_after(answer.headers.get("Retry-After", "")))
        raise error

    # -- the login

    def _authorized(
        self, method: str, url: str, scopes: Scopes, headers: dict[str, str], body: Body | None
    ) -> Answer:
        """The answer to a request with our login, if the registry wants one."""
        for _ in range(3):  # without, with the first token, with a fresh one
            header = self._authorizer.header(scopes) if self._is_own(url) else None
            answer = self._followed(method, url, headers, header, body)
            if answer.status != _UNAUTHORIZED or not self._is_own(answer.url):
                return answer
            answer.begin()
            self._authorizer.challenged(answer.listed("WWW-Authenticate"), scopes, header)
        raise self._authorizer.refused()

    def _exchange(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, bytes, str]:
        """Asks a token service. It is told the login, and so is never followed elsewhere."""
        answer = self._once(method, url, headers, body)
        self._check_passing(answer)
        content = answer.read(self.limits.document_bytes, "a token")
        return answer.status, content, answer.content_type

    def _check_passing(self, answer: Answer) -> None:
        if answer.status in faults.BUSY:
            self._check(answer, frozenset(), "the token")

    # -- redirects

    def _followed(
        self, method: str, url: str, headers: dict[str, str], login: str | None, body: Body | None
    ) -> Answer:
        """The answer at the end of the redirects; only the registry itself sees the login."""
        for _ in range(self.limits.redirects + 1):
            sent = headers | ({"Authorization": login} if login and self._is_own(url) else {})
            answer = self._once(method, url, sent, body)
            if answer.status not in REDIRECTS:
                return answer
            target = answer.headers.get("Location", "")
            answer.begin()
            url = self._redirected(url, target, method, answer.status)
        raise RegistryError(
            f"{self.host} sends requests from one address to another without end.",
            hint="Check the registry's address, and the proxy that may stand before it.",
        )

    def _redirected(self, url: str, target: str, method: str, status: int) -> str:
        """Where to; what changes something is sent on only by the statuses that keep its method."""
        try:
            new = urljoin(url, target)
            parts = urlsplit(new)
            usable = bool(target) and parts.scheme in {"http", "https"} and bool(parts.hostname)
            downgraded = urlsplit(url).scheme == "https" and parts.scheme != "https"
        except ValueError:
            usable = downgraded = False
        kept = method in {"GET", "HEAD"} or status in _SAME_METHOD
        if not usable or downgraded or not kept:
            raise RegistryError(
                f"{self.host} sends a request to an address that cannot be followed.",
                hint="Check the registry's address, and the proxy that may stand before it.",
            )
        return new

    def _is_own(self, url: str) -> bool:
        try:
            return _origin(url) == _origin(self._base())
        except ValueError:
            return False

    # -- the scheme

    def _base(self) -> str:
        """`https://HOST/`, or with HTTP where that is allowed and spoken."""
        if self._scheme is None:
            failed_before = self._failed
            with self._lock:
                if self._scheme is None:
                    if self._failed is not None and self._failed is not failed_before:
                        raise self._failed  # found while this thread waited for its turn
                    self._scheme = self._try_schemes()
        return f"{self._scheme}://{self.place.reference.host}/"

    def _try_schemes(self) -> Scheme:
        try:
            return self._find_scheme()
        except (Passing, UnreachableError) as error:
            self._failed = error
            raise

    def _find_scheme(self) -> Scheme:
        schemes = self._hosts.schemes(self.place)
        if len(schemes) == 1:
            return schemes[0]
        failed: Passing | UnreachableError | None = None
        for scheme in schemes:
            try:
                if self._speaks(scheme):
                    return scheme
            except (Passing, UnreachableError) as error:
                failed = failed or error
        raise failed or faults.no_document(self.host, "a registry", b"", "")

    def _speaks(self, scheme: Scheme) -> bool:
        answer = self._once("GET", f"{scheme}://{self.place.reference.host}/v2/", {}, None)
        body = answer.begin().lower()
        if answer.status in REDIRECTS and scheme == "http":
            return not self._is_secure_self(answer.headers.get("Location", ""))
        # What servers of TLS say to plain HTTP, in words or with a status of nginx's own.
        return not (
            scheme == "http" and (answer.status == 497 or (answer.status == 400 and _any(body)))  # noqa: PLR2004
        )

    def _is_secure_self(self, location: str) -> bool:
        """Whether an address is the registry's own with TLS: there it is to be asked at once."""
        try:
            return _origin(location) == _origin(f"https://{self.place.reference.host}/")
        except ValueError:
            return False

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Body | None) -> Answer:
        answer = self._connections.ask(method, url, headers, body)
        self.known = True
        return answer


def following(url: str, location: str, host: str) -> str:
    """The address that a registry gives for what comes next, such as an upload.

    A registry behind a proxy may believe that it is asked over plain HTTP; its own host is
    always asked as it was at first.

    Raises:
        RegistryError: It is no address.
    """
    try:
        new, old = urlsplit(urljoin(url, location)), urlsplit(url)
        if new.hostname == old.hostname and (new.scheme, old.scheme) == ("http", "https"):
            new = new._replace(scheme="https", netloc=old.netloc)
        if location and new.scheme in {"http", "https"} and new.hostname:
            return urlunsplit(new)
    except ValueError:
        pass
    raise RegistryError(
        f"{host} names no address for an upload.",
        hint="Check the registry's address: what answers there is no registry.",
    )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port; some registries write the port that needs not be written."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _any(body: bytes) -> bool:
    return any(each in body for each in _OTHER_SCHEME)


def _retry_after(text: str) -> float | None:
    """Seconds, or a date (RFC 9110, section 10.2.3); None where it is neither."""
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_RETRY_AFTER_S)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - few registries answer so

    try:
        when = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError):
        return None
    return min(max(when - time.time(), 0.0), _LONGEST_RETRY_AFTER_S)
