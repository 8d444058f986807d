"""An endpoint as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from serve.endpoints.promotion import Promotion
from serve.endpoints.traffic import HeaderRule

if TYPE_CHECKING:
    from serve.endpoints.front.stats import Counts

_MS = 1000


class BackendView(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment behind an endpoint.

    Attributes:
        deployment: Its name.
        weight: Its share of all weights; None for one that only a rule or a shadow names.
        percent: Of the requests without a rule.
        shadow_percent: Of the requests that it gets a copy of; None for no shadow.
        up: Whether the front believes that it answers; None where nobody can tell.
        requests: Since the front's workers began; failed ones included, copies for a shadow.
        failed: Of those: no answer, or a status of 5xx.
        dropped: Copies that were never sent.
        p50_ms: Half of the answers came within this time; None without answers.
        p95_ms: As above, for 95 %.
        p99_ms: As above, for 99 %.
        in_flight: Now.
    """

    deployment: str
    weight: int | None = None
    percent: float = 0.0
    shadow_percent: float | None = None
    up: bool | None = None
    requests: int = 0
    failed: int = 0
    dropped: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    in_flight: int = 0


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as it really is.

    Attributes:
        name: Its name.
        target: What answers: `front` or `kubernetes`.
        state: `running`, `degraded`, `starting`, `failed`, `down` or `stopped`.
        url: Where it answers.
        note: Why the state is not `running`.
        generation: Counts the changes of what is wished for.
        following: The generation that really holds; None where nobody can tell.
        backends: The deployments, in the order in which they were given.
        rules: Headers that decide before the weights.
        sticky: The header by which requests stay with a deployment; empty for none.
        settings: Of the front.
        promotion: Under way, or the last one; None for none.
        changed_at: UTC, ISO 8601.
        changed_by: The user.
    """

    name: str
    target: str
    state: str
    url: str
    note: str
    generation: int
    following: int | None
    backends: tuple[BackendView, ...]
    rules: tuple[HeaderRule, ...]
    sticky: str
    settings: dict[str, Any]
    promotion: Promotion | None
    changed_at: str
    changed_by: str


def with_counts(view: BackendView, counts: Counts, *, dropped: int = 0) -> BackendView:
    """The view with what was counted."""

    def milliseconds(part: float) -> float | None:
        found = counts.quantile_s(part)
        return None if found is None else round(found * _MS, 3)

    return msgspec.structs.replace(
        view,
        requests=counts.requests,
        failed=counts.requests - counts.successes,
        dropped=dropped,
        p50_ms=milliseconds(0.5),
        p95_ms=milliseconds(0.95),
        p99_ms=milliseconds(0.99),
        in_flight=counts.in_flight,
    )
