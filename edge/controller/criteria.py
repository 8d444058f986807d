"""What telemetry has to say of a wave before the next one begins. Pure."""

from __future__ import annotations

import math
from typing import Final, Protocol

from edge.controller.entities import Plan
from scoring.errors import UsageError

FEW: Final = 20
"""Fewer requests say nothing about a version."""

_SLOWEST: Final = 0.99


class Answered(Protocol):
    """What was answered: `edge.telemetry.metrics.Traffic`."""

    @property
    def requests(self) -> float:
        """To the model."""
        ...

    @property
    def errors(self) -> float:
        """Those of them that were answered with an error of the server, the model or the script."""
        ...

    def quantile(self, part: float) -> float:
        """The bound below which this part of the requests was answered."""
        ...


def check(plan: Plan) -> None:
    """Refuses criteria that make no sense.

    Raises:
        UsageError: A number is none, or nothing is observed that could be judged.
    """
    if not 0 <= plan.most_errors <= 1:
        raise UsageError(
            "The errors of a wave are a part of 1.",
            hint="Write 0.01 for one of a hundred.",
            where="most_errors",
        )
    if not 0 <= plan.most_latency_s < math.inf:
        raise UsageError("The latency of a wave is 0 s (any) or more.", where="most_latency_s")
    if not 0 <= plan.observe_s < math.inf:
        raise UsageError("A wave is observed for 0 s (not at all) or more.", where="observe_s")


def judges(plan: Plan) -> bool:
    """Whether telemetry decides about the waves of a plan."""
    return plan.observe_s > 0 and (plan.most_errors < 1 or plan.most_latency_s > 0)


def complaint(plan: Plan, answered: Answered) -> str:
    """What is wrong with what a wave has answered; empty for nothing."""
    if answered.requests < FEW:
        return ""
    part = answered.errors / answered.requests
    if part > plan.most_errors:
        return (
            f"{part:.1%} of {answered.requests:.0f} requests failed, and {plan.most_errors:.1%} may"
        )
    slow = answered.quantile(_SLOWEST)
    if 0 < plan.most_latency_s < slow:
        shown = "longer than can be told" if math.isinf(slow) else f"up to {slow:g} s"
        return f"the slowest hundredth took {shown}, and {plan.most_latency_s:g} s are the most"
    return ""
