"""Bearer tokens of an OpenID Connect issuer, to principals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scoring.errors import UnauthorizedError
from serve.server.access.jwks import ALGORITHMS, SigningKey, choose
from serve.server.access.principal import EVERY_MODEL, SCOPES, Principal

if TYPE_CHECKING:
    from serve.server.access.principal import Grants

_LEEWAY_S = 30
_LATEST = 1 << 53
_PREFIX = "fieldpost."
_SCOPE_CLAIMS = ("scope", "scp", "roles", "permissions")
_NAME_CLAIMS = ("preferred_username", "client_id", "azp", "appid", "sub")
_REQUIRED = ["exp", "iss", "aud", "sub"]


def unverified_header(token: str) -> tuple[str, str]:
    """The key's name and the algorithm that a token says of itself.

    Raises:
        UnauthorizedError: It is no signed token, or is signed in a way that is not taken.
    """
    import jwt  # noqa: PLC0415 - the extra "oidc"

    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise _refused("is no signed token") from None
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if algorithm not in ALGORITHMS:
        raise _refused(f"is signed with {algorithm!r}, which is not taken")
    if "crit" in header or not isinstance(kid, str):
        raise _refused("has a header that is not understood")
    return kid, algorithm


def verify(
    token: str, keys: Sequence[SigningKey], *, issuer: str, audience: str
) -> dict[str, Any] | None:
    """The claims of a token whose signature, issuer, audience and times are right.

    Returns:
        None where no key has the name that the token says: the issuer may have new ones.

    Raises:
        UnauthorizedError: What is wrong with it.
    """
    kid, algorithm = unverified_header(token)
    fitting = choose(keys, kid, algorithm)
    if not fitting:
        if any(key.kid == kid for key in keys):
            raise _refused(f"is signed with {algorithm!r}, which its key is not for")
        return None
    refusal = _refused("is not valid")
    for key in fitting:
        try:
            return _decode(token, key, algorithm, issuer, audience)
        except UnauthorizedError as error:
            refusal = error
    raise refusal


def _decode(
    token: str, key: SigningKey, algorithm: str, issuer: str, audience: str
) -> dict[str, Any]:
    import jwt  # noqa: PLC0415 - as above

    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            audience=audience,
            issuer=issuer,
            leeway=_LEEWAY_S,
            options={"require": _REQUIRED},
        )
    except jwt.ExpiredSignatureError:
        raise _refused("has expired") from None
    except jwt.PyJWTError as error:
        raise _refused(f"is not valid here ({error})") from None
    except (ValueError, TypeError, OverflowError):  # claims of types that nothing expects
        raise _refused("is not valid") from None
    return claims


def _refused(what: str) -> UnauthorizedError:
    return UnauthorizedError(
        f"The bearer token {what}.",
        hint="Get a new token from the issuer, for the audience of this server.",
        where="authorization",
    )


def principal(claims: dict[str, Any]) -> Principal:
    """Who a token is for, and what its scopes and roles allow."""
    name = next((claims[claim] for claim in _NAME_CLAIMS if isinstance(claims.get(claim), str)), "")
    return Principal(
        f"oidc:{claims['sub']}",
        name,
        grants(claims),
        expires=float(min(int(claims["exp"]), _LATEST)) + _LEEWAY_S,
    )


def grants(claims: dict[str, Any]) -> Grants:
    """What claims allow: `fieldpost.SCOPE` for every model, `fieldpost.SCOPE:MODEL` for one."""
    found: dict[str, frozenset[str] | None] = {}
    for value in _values(claims):
        scope, _, model = value.removeprefix(_PREFIX).partition(":")
        if not value.startswith(_PREFIX) or scope not in SCOPES:
            continue
        before = found.get(scope, frozenset())
        found[scope] = EVERY_MODEL if before is None or not model else before | {model}
    return found


def _values(claims: dict[str, Any]) -> list[str]:
    """The scopes, roles and permissions: lists, or one string with spaces between them."""
    values: list[str] = []
    for claim in _SCOPE_CLAIMS:
        given = claims.get(claim)
        if isinstance(given, str):
            values.extend(given.split())
        elif isinstance(given, list):
            values.extend(value for value in given if isinstance(value, str))
    return values
