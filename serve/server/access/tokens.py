"""The bearer tokens of a running server."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from scoring.errors import MissingDependencyError, UsageError
from serve.server.access import oidc
from serve.server.access.issuer import Issuer, source

if TYPE_CHECKING:
    from serve.server.access.principal import Principal
    from serve.server.access.rate import Limits
    from serve.server.settings import ServerSettings


class Tokens:
    """The tokens of an issuer.

    Args:
        settings: The server's.
        limits: Where requests are counted.
        post: Runs a callable on the event loop's thread.
        changed: Called when the issuer has other keys than before.

    Raises:
        UsageError: A setting is wrong.
        MissingDependencyError: A package that is needed for tokens is not installed.
    """

    def __init__(
        self,
        settings: ServerSettings,
        limits: Limits,
        post: Callable[..., object],
        changed: Callable[[], None],
    ) -> None:
        if not settings.oidc_audience:
            raise UsageError(
                "oidc_issuer is given without oidc_audience: tokens for others would be taken.",
                hint="Give the audience that the issuer writes into tokens for this server.",
                where="oidc_audience",
            )
        fetch, file = source(settings.oidc_issuer, settings.oidc_jwks)
        _require_packages(fetched=file is None)
        self.issuer = Issuer(fetch, post, changed, file)
        self._names = {"issuer": settings.oidc_issuer, "audience": settings.oidc_audience}
        self._limits = limits

    def principal(self, token: str) -> Principal | None:
        """The holder of a token; None where newer keys of the issuer are needed to tell.

        Raises:
            UnauthorizedError: What is wrong with the token.
        """
        claims = oidc.verify(token, self.issuer.keys or (), **self._names)
        if claims is None:
            return None
        found = oidc.principal(claims)
        found.bucket = self._limits.bucket(found.id)
        return found


def _require_packages(*, fetched: bool) -> None:
    """Raises where the extra "oidc" is not installed, as in a package that nobody added it to."""
    needed = ("jwt", "cryptography", *(("httpx",) if fetched else ()))
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"Bearer tokens need packages that are not installed: {', '.join(missing)}.",
            hint="Install fieldpost[oidc] (in a package: add pyjwt[crypto] and httpx to its "
            "environment), or leave oidc_issuer empty.",
            where="oidc_issuer",
        )
