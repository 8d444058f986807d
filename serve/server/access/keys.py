"""API keys: made, hashed, verified. Pure.

A key is `fp_ID_SECRET`; the secret is 32 random bytes. Only a salted hash of it is kept. The hash
is a fast one: slow hashes make it dear to guess what people choose, and nobody guesses 256 random
bits, while a server that spent 100 ms on every unknown key could be kept busy by anyone.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Literal

import msgspec

from scoring.errors import UnauthorizedError, UsageError
from serve.server.access.credentials import KEY_PREFIX
from serve.server.access.principal import EVERY_MODEL, INFER, SCOPES

_SALT_BYTES = 16
_SECRET_BYTES = 32
_PERSON = b"fieldpost.key"
_FORM = re.compile(rf"{KEY_PREFIX}([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})\Z")

Scope = Literal["infer", "metrics", "admin"]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Identifier = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{12}$")]
Salt = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept of a key.

    Attributes:
        id: The public part; names the key in lists and logs.
        name: Whose it is; two keys may share it while one replaces the other.
        salt: In hexadecimal.
        hash: Of the secret, in hexadecimal.
        created: When.
        expires: From when on it is not taken; None for never.
        revoked: Since when it is not taken; None while it is.
        scopes: What it may do.
        models: What it may do that with; None for every model.
        rate: Requests a second; None for the server's limit, 0 for none.
        burst: Requests that may come at once; None for the server's.
    """

    id: Identifier
    name: str
    salt: Salt
    hash: Digest
    created: Moment
    expires: Moment | None = None
    revoked: Moment | None = None
    scopes: tuple[Scope, ...] = (INFER,)
    models: tuple[str, ...] | None = None
    rate: Annotated[float, msgspec.Meta(ge=0)] | None = None
    burst: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __repr__(self) -> str:
        return f"Key({self.id!r}, {self.name!r})"

    @property
    def grants(self) -> dict[str, frozenset[str] | None]:
        """The scopes with the models that they are for."""
        models = EVERY_MODEL if self.models is None else frozenset(self.models)
        return dict.fromkeys(self.scopes, models)

    def state(self, now: datetime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"

    def hides(self, secret: str) -> bool:
        """Whether this is the secret; takes as long for a wrong one."""
        found = _hash(secret, bytes.fromhex(self.salt))
        return hmac.compare_digest(found, self.hash)


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file of keys."""

    keys: tuple[Key, ...] = ()
    version: Literal[1] = 1


def make(
    name: str,
    *,
    scopes: Iterable[Scope] = (INFER,),
    models: Iterable[str] | None = None,
    expires: datetime | None = None,
    rate: float | None = None,
    burst: int | None = None,
) -> tuple[Key, str]:
    """A new key: what is kept of it, and the text that its holder shows.

    Raises:
        UsageError: There is no name, or no scope that there is.
    """
    chosen = tuple(scope for scope in SCOPES if scope in set(scopes))
    if not name.strip() or not name.isprintable():
        raise UsageError("A key needs a name.", hint="Name whoever is to hold it.")
    if not chosen:
        raise UsageError("A key needs a scope.", hint=f"The scopes are {', '.join(SCOPES)}.")
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    salt = secrets.token_bytes(_SALT_BYTES)
    key = Key(
        id=secrets.token_hex(6),
        name=name,
        salt=salt.hex(),
        hash=_hash(secret, salt),
        created=datetime.now(UTC).replace(microsecond=0),
        expires=expires,
        scopes=chosen,
        models=None if models is None else tuple(models),
        rate=rate,
        burst=burst,
    )
    return key, f"{KEY_PREFIX}{key.id}_{secret}"


def _hash(secret: str, salt: bytes) -> str:
    digest = blake2b(secret.encode("ascii"), digest_size=32, salt=salt, person=_PERSON)
    return digest.hexdigest()


def verify(text: str, keys: dict[str, Key], now: datetime) -> Key:
    """The key that a sender shows.

    Args:
        text: What was shown.
        keys: By their ids.
        now: The time.

    Raises:
        UnauthorizedError: There is no such key, or it is over. Only the holder of a right secret is
            told which.
    """
    match = _FORM.match(text)
    key = keys.get(match[1]) if match else None
    if match is None or key is None or not key.hides(match[2]):
        raise UnauthorizedError(
            "The API key is not one of this server's.",
            hint="Check that it is whole, and that it was made for this server.",
        )
    state = key.state(now)
    if state != "active":
        raise UnauthorizedError(
            f"The API key {key.id} is {state}.", hint="Ask for a new one (fieldpost key rotate)."
        )
    return key
