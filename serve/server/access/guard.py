"""The one question that is asked for every request: who is it, and may it have this?

Everything runs on the event loop's thread. What was verified once is found by the raw value of the
header; a tick twice a second forgets what has expired, was revoked, or was signed by a key that the
issuer no longer has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Protocol

from scoring.errors import FieldpostError, UnauthorizedError
from serve.server.access.credentials import parse
from serve.server.access.needs import need_of
from serve.server.access.principal import ANONYMOUS, EVERY_MODEL, SCOPES, Principal
from serve.server.access.rate import Limits, sender_of
from serve.server.access.ring import KeyRing
from serve.server.access.tokens import Tokens

if TYPE_CHECKING:
    from serve.server.settings import ServerSettings

Done = Callable[[Principal | None, FieldpostError | None], None]

_MOST_KNOWN = 4096
_REALM = 'realm="fieldpost"'
_CHALLENGES = (f"Bearer {_REALM}", f"ApiKey {_REALM}")
_CHALLENGES_AFTER_REFUSAL = (f'Bearer {_REALM}, error="invalid_token"', f"ApiKey {_REALM}")


class Gate(Protocol):
    """What a server asks about every request, whatever its protocol.

    Attributes:
        default_model: What is asked where the target names no model.
    """

    default_model: str

    def admit(self, credential: bytes, target: bytes, address: str = "") -> Principal | None:
        """Who asks, if it may.

        Args:
            credential: The raw value of `authorization`, or `key ` and the value of `x-api-key`.
            target: The request target, or the path of a gRPC method.
            address: Of the client, for limits where nobody has to say who he is.

        Returns:
            None where it takes a while to tell: `decide` does.

        Raises:
            UnauthorizedError: The credential is missing or not taken.
            ForbiddenError: It is not for this.
            RateLimitedError: It comes too often.
        """
        ...

    def decide(self, credential: bytes, target: bytes, done: Done) -> None:
        """As `admit`, later: `done` gets the principal or the error."""
        ...

    def tick(self) -> None:
        """Looks at what may have changed; called about twice a second."""
        ...


class Guard:
    """A gate for those who can say who they are; use `from_settings`.

    Args:
        ring: The API keys; None for none.
        make_tokens: Makes the issuer's part, given what to call when its keys change.

    Attributes:
        default_model: What is asked where the target names no model.
    """

    def __init__(
        self,
        ring: KeyRing | None,
        make_tokens: Callable[[Callable[[], None]], Tokens] | None = None,
    ) -> None:
        self._ring = ring
        self._tokens = None if make_tokens is None else make_tokens(self._forget)
        self._known: dict[bytes, Principal] = {}
        self._default_model = ""

    @staticmethod
    def from_settings(settings: ServerSettings, post: Callable[..., object]) -> Gate | None:
        """What the settings ask for; None where everyone may ask everything.

        Args:
            settings: The server's.
            post: Runs a callable on the event loop's thread (`loop.call_soon_threadsafe`).

        Raises:
            UsageError: A setting is wrong, or the file of keys cannot be read.
        """
        if not (settings.api_keys or settings.oidc_issuer):
            return AddressGuard(Limits.from_settings(settings)) if settings.rate_limit else None
        limits = Limits.from_settings(settings)
        ring = KeyRing(Path(settings.api_keys), limits) if settings.api_keys else None
        if not settings.oidc_issuer:
            return Guard(ring)
        return Guard(ring, lambda changed: Tokens(settings, limits, post, changed))

    @property
    def default_model(self) -> str:
        """What is asked where the target names no model."""
        return self._default_model

    @default_model.setter
    def default_model(self, name: str) -> None:
        if name != self._default_model:
            self._default_model = name
            for principal in self._known.values():
                principal.admitted.clear()

    def admit(
        self,
        credential: bytes,
        target: bytes,
        address: str = "",  # noqa: ARG002 - who can say who he is, is counted as such
    ) -> Principal | None:
        """See `Gate.admit`."""
        principal = self._known.get(credential)
        if principal is None:
            principal = self._meet(credential, target)
            if principal is None:
                return None
        if target not in principal.admitted:
            principal.require(need_of(target), self._default_model)
            principal.admit(target)
        if principal.bucket is not None:
            principal.bucket.take()
        return principal

    def decide(self, credential: bytes, target: bytes, done: Done) -> None:
        """See `Gate.decide`."""
        assert self._tokens is not None

        def again(error: FieldpostError | None) -> None:
            if error is not None:
                done(None, error)
                return
            try:
                principal = self.admit(credential, target)
            except FieldpostError as refusal:
                done(None, refusal)
                return
            if principal is None:
                unknown = _unauthorized("The bearer token is signed by a key that is not known.")
                unknown.challenges = _CHALLENGES_AFTER_REFUSAL
                done(None, unknown)
            else:
                done(principal, None)

        self._tokens.issuer.refresh(again)

    def tick(self) -> None:
        """See `Gate.tick`."""
        if self._tokens is not None:
            self._tokens.issuer.tick()
        if self._ring is not None and self._ring.changed():
            self._forget()
            return
        now = time()
        for credential in [raw for raw, known in self._known.items() if known.expires <= now]:
            del self._known[credential]

    def _forget(self) -> None:
        self._known.clear()

    def _meet(self, credential: bytes, target: bytes) -> Principal | None:
        """The principal of a credential that was not seen before."""
        if not need_of(target).scope:
            return ANONYMOUS
        try:
            principal = self._verify(credential)
        except UnauthorizedError as error:
            error.challenges = _CHALLENGES_AFTER_REFUSAL if credential else _CHALLENGES
            raise
        if principal is not None:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[credential] = principal
        return principal

    def _verify(self, raw: bytes) -> Principal | None:
        credential = parse(raw)
        if credential is None:
            raise _unauthorized("The credential has no form that is known." if raw else "")
        if credential.kind == "key":
            if self._ring is None:
                raise _unauthorized("API keys are not taken here.")
            return self._ring.principal(credential.text)
        if self._tokens is None:
            raise _unauthorized("The bearer token is no API key of this server.")
        return self._tokens.principal(credential.text)


def _unauthorized(message: str) -> UnauthorizedError:
    return UnauthorizedError(
        message or "The request does not say who asks.",
        hint="Send 'Authorization: Bearer KEY' (or a token of the issuer), or 'X-API-Key: KEY'.",
        where="authorization",
    )


class AddressGuard:
    """A gate that lets everyone in, but not too often.

    Args:
        limits: Where requests are counted.
    """

    default_model = ""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[str, Principal] = {}

    def admit(
        self,
        credential: bytes,  # noqa: ARG002 - nobody has to say who he is
        target: bytes,
        address: str = "",
    ) -> Principal | None:
        """See `Gate.admit`."""
        principal = self._known.get(address)
        if principal is None:
            principal = self._meet(address)
        if principal.bucket is not None and (
            target in principal.admitted or self._counts(principal, target)
        ):
            principal.bucket.take()
        return principal

    def decide(self, credential: bytes, target: bytes, done: Done) -> None:
        """See `Gate.decide`; it never takes a while here."""
        try:
            done(self.admit(credential, target), None)
        except FieldpostError as error:
            done(None, error)

    def tick(self) -> None:
        """Nothing changes here."""

    def _meet(self, address: str) -> Principal:
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        bucket = self._limits.bucket(sender_of(address))
        principal = Principal("", "", dict.fromkeys(SCOPES, EVERY_MODEL), bucket=bucket)
        self._known[address] = principal
        return principal

    @staticmethod
    def _counts(principal: Principal, target: bytes) -> bool:
        """Whether a target is one that is limited; probes are not."""
        if not need_of(target).scope:
            return False
        principal.admit(target)
        return True
