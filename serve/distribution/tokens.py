"""Who we are to a registry: passwords, and tokens that its token service gives for a scope."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec

from scoring.errors import RegistryDeniedError, RegistryError
from serve.distribution import faults
from serve.distribution.challenges import Challenge, choose
from serve.distribution.hosts import is_loopback

if TYPE_CHECKING:
    from serve.distribution.credentials import Credential

CLIENT_ID = "fieldpost"
DEFAULT_LIFE_S = 60.0
_EARLY_S = 10.0

Scopes = frozenset[str]
Clock = Callable[[], float]


class Exchange(Protocol):
    """Asks a token service; raises `faults.Passing` for what may pass."""

    def __call__(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, bytes, str]:
        """Status, body and content type."""
        ...


class _Token(msgspec.Struct, frozen=True):
    text: str
    until: float


class Authorizer:
    """What stands in `Authorization` for one registry; any number of threads may ask.

    Args:
        host: The registry, for messages.
        secure: Whether it is asked over HTTPS.
        login: Finds the user's login; asked once, and only when the registry wants one.
        exchange: Asks the token service.
        clock: Seconds.
    """

    def __init__(
        self,
        host: str,
        login: Callable[[], Credential | None],
        exchange: Exchange,
        *,
        secure: Callable[[], bool],
        clock: Clock = time.monotonic,
    ) -> None:
        self._host = host
        self._secure = secure
        self._login = login
        self._exchange = exchange
        self._clock = clock
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._credential: Credential | None = None
        self._asked = False
        self._tokens: dict[Scopes, _Token] = {}

    def header(self, scopes: Scopes) -> str | None:
        """The value to send; None while the registry has asked for nothing."""
        with self._lock:
            if self._challenge is None:
                return None
            return self._value(self._challenge, scopes)

    def challenged(self, header: str, scopes: Scopes, sent: str | None) -> None:
        """Takes a 401: after it `header` gives something that may be taken.

        Args:
            header: `WWW-Authenticate`.
            scopes: What the request was for.
            sent: What it had in `Authorization`.

        Raises:
            RegistryDeniedError: There is no login, or the registry does not take it.
        """
        challenge = choose(header)
        with self._lock:
            if challenge is None:
                raise self._denied("asks for a way to log in that Fieldpost does not know")
            self._challenge = challenge
            if challenge.scheme == "basic":
                if sent is not None or self._user() is None:
                    raise self._refused()
                return
            token = self._tokens.get(scopes)
            if token is not None and f"Bearer {token.text}" == sent:
                del self._tokens[scopes]  # else another thread has a new one already

    def refused(self) -> RegistryDeniedError:
        """The error for a 401 to what was just given for it."""
        with self._lock:
            return self._refused()

    def _value(self, challenge: Challenge, scopes: Scopes) -> str:
        if challenge.scheme == "basic":
            user = self._user()
            if user is None:
                raise self._refused()
            return user.basic()
        token = self._tokens.get(scopes)
        if token is None or token.until <= self._clock():
            token = self._fetch(challenge, scopes)
            self._tokens[scopes] = token
        return f"Bearer {token.text}"

    def _user(self) -> Credential | None:
        if not self._asked:
            self._credential = self._login()
            self._asked = True
        return self._credential

    def _fetch(self, challenge: Challenge, scopes: Scopes) -> _Token:
        user = self._user()
        if user is not None and user.registry_token:
            return _Token(user.registry_token, float("inf"))
        realm = self._realm(challenge)
        fields = [("service", challenge.get("service"))] if challenge.get("service") else []
        wanted = sorted(_with_asked(scopes, challenge.get("scope")))
        if user is not None and user.identity_token:
            answer = self._exchange(*_refresh(realm, fields, wanted, user.identity_token))
        else:
            answer = self._exchange(*_ask(realm, fields, wanted, user))
        return self._parse(*answer)

    def _realm(self, challenge: Challenge) -> str:
        """The token service: one in the clear would see passwords, unless all is in the clear."""
        realm = challenge.get("realm")
        try:
            parts = urlsplit(realm)
            usable = parts.scheme == "https" or (
                parts.scheme == "http"
                and (not self._secure() or is_loopback(parts.netloc.rpartition("@")[2]))
            )
        except ValueError:
            usable = False
        if not usable or not parts.hostname:
            raise RegistryError(
                f"{self._host} names a token service that cannot be used: "
                f"{faults.printable(realm)!r}.",
                hint="A registry's token service has to answer over HTTPS.",
            )
        return realm

    def _parse(self, status: int, body: bytes, content_type: str) -> _Token:
        if status in {400, 401, 403}:
            raise self._refused(faults.words(body, content_type))
        if status == 404:  # noqa: PLR2004 - it is the service that is missing, not the image
            raise faults.no_document(self._host, "a token", body, content_type)
        if status != 200:  # noqa: PLR2004
            raise faults.refusal(self._host, "the token", status, body, content_type)
        try:
            document = msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            raise faults.no_document(self._host, "a token", body, content_type) from error
        text = document.token or document.access_token
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise faults.no_document(self._host, "a token", body, content_type)
        life = document.expires_in or DEFAULT_LIFE_S
        return _Token(text, self._clock() + max(life - min(_EARLY_S, life / 4), 0))

    def _refused(self, said: str = "") -> RegistryDeniedError:
        because = f" ({said})" if said else ""
        user = self._credential
        if user is None:
            return self._denied(f"wants a login, and there is none for it{because}")
        name = f"the login of {user.username}" if user.username else "the login"
        return self._denied(f"does not take {name}{because}")

    def _denied(self, reason: str) -> RegistryDeniedError:
        return RegistryDeniedError(
            f"{self._host} {reason}.", hint=f"Log in: 'docker login {self._host}'."
        )


class _Answer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


def _ask(
    realm: str, fields: list[tuple[str, str]], scopes: Iterable[str], user: Credential | None
) -> tuple[str, str, dict[str, str], bytes | None]:
    query = [*fields, *(("scope", each) for each in scopes)]
    headers = {}
    if user is not None:
        query.append(("account", user.username))
        headers["Authorization"] = user.basic()
    joint = "&" if urlsplit(realm).query else "?"
    return "GET", f"{realm}{joint}{urlencode(query)}" if query else realm, headers, None


def _refresh(
    realm: str, fields: list[tuple[str, str]], scopes: Iterable[str], identity: str
) -> tuple[str, str, dict[str, str], bytes | None]:
    form = [
        ("grant_type", "refresh_token"),
        *fields,
        ("client_id", CLIENT_ID),
        ("scope", " ".join(scopes)),
        ("refresh_token", identity),
    ]
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return "POST", realm, headers, urlencode(form).encode()


def _with_asked(scopes: Scopes, asked: str) -> Scopes:
    """Our scopes, and what the registry names beside them: its names may not be those of paths."""
    ours = {each.rpartition(":")[0] for each in scopes}
    theirs = {each for each in asked.split() if each.rpartition(":")[0] not in ours}
    return scopes | theirs
