"""The bearer tokens of a running server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scoring.errors import UsageError
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
    """

    def __init__(
        self,
        settings: ServerSettings,
        limits: Limits,
        post: Callable[..., object],
        changed: Callable[[], None],
    ) -> None:
        _require_pyjwt()
        if not settings.oidc_audience:
            raise UsageError(
                "oidc_issuer is given without oidc_audience: tokens for others would be taken.",
                hint="Give the audience that the issuer writes into tokens for this server.",
                where="oidc_audience",
            )
        fetch, file = source(settings.oidc_issuer, settings.oidc_jwks)
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


def _require_pyjwt() -> None:
    try:
        import cryptography  # noqa: F401, PLC0415 - the extra "oidc"
        import jwt  # noqa: F401, PLC0415
    except ImportError:
        raise UsageError(
            "Bearer tokens need the package PyJWT with cryptography.",
            hint="Install fieldpost[oidc], or leave oidc_issuer empty.",
            where="oidc_issuer",
        ) from None
