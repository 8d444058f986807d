"""Who asks, and what that one may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from scoring.errors import ForbiddenError

if TYPE_CHECKING:
    from serve.server.access.needs import Need
    from serve.server.access.rate import Bucket

INFER: Final = "infer"
METRICS: Final = "metrics"
ADMIN: Final = "admin"
SCOPES: Final = (INFER, METRICS, ADMIN)
"""To ask models, to read the metrics, and to load and unload models (which includes metrics)."""

EVERY_MODEL: frozenset[str] | None = None

Grants = Mapping[str, "frozenset[str] | None"]
"""Each scope that one has, with the models that it is for; None for all of them."""

_MOST_ADMITTED = 512


class Principal:
    """A holder of a verified credential.

    Args:
        identity: `key:ID` or `oidc:SUBJECT`; empty for one of whom nothing is known.
        name: For people.
        grants: What it may do.
        expires: Seconds since the epoch; infinite for never.
        bucket: Counts its requests; None for no limit.

    Attributes:
        id: The identity.
        admitted: Request targets that were found to be allowed, so that they need no second look.
    """

    __slots__ = ("_grants", "admitted", "bucket", "expires", "id", "name")

    def __init__(
        self,
        identity: str,
        name: str,
        grants: Grants,
        *,
        expires: float = float("inf"),
        bucket: Bucket | None = None,
    ) -> None:
        self.id = identity
        self.name = name
        self.expires = expires
        self.bucket = bucket
        self.admitted: set[bytes] = set()
        self._grants = grants

    def __repr__(self) -> str:
        return f"Principal({self.id!r}, {self.name!r})"

    def require(self, need: Need, default_model: str = "") -> None:
        """Holds a need against what was granted.

        Args:
            need: What a request asks for.
            default_model: The model that is asked where the request names none.

        Raises:
            ForbiddenError: The scope is missing, or is for other models.
        """
        if not need.scope:
            return
        enough = need.scope not in self._grants and need.instead in self._grants
        models = self._models(need.instead if enough else need.scope)
        if models is None or need.model is None:
            return
        model = need.model or default_model
        if model not in models:
            raise ForbiddenError(
                f"{self._title} is not for the model {model!r}.",
                hint="Use a credential that is, or ask a model that this one is for.",
                where=model,
            )

    def require_model(self, model: str, scope: str = INFER) -> None:
        """Holds one model against what was granted, where the target does not name it (gRPC).

        Raises:
            ForbiddenError: As `require`.
        """
        from serve.server.access.needs import Need  # noqa: PLC0415 - the modules know each other

        self.require(Need(scope, model))

    def admit(self, target: bytes) -> None:
        """Remembers that a target is allowed; senders may make up any number of them."""
        if len(self.admitted) >= _MOST_ADMITTED:
            self.admitted.clear()
        self.admitted.add(target)

    @property
    def _title(self) -> str:
        return f"The credential of {self.name!r}" if self.name else "This credential"

    def _models(self, scope: str) -> frozenset[str] | None:
        if scope not in self._grants:
            raise ForbiddenError(
                f"{self._title} lacks the scope {scope!r}.",
                hint=f"Use one that was made with --scope {scope}, "
                f"or a token with fieldpost.{scope}.",
                where=scope,
            )
        return self._grants[scope]


ANONYMOUS = Principal("", "", dict.fromkeys(SCOPES, EVERY_MODEL))
"""Whoever asks what everyone may ask."""
