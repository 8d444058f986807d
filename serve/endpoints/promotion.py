"""Promoting a deployment step by step, halting by itself: one state machine. Pure.

`begin` makes the first state, `decide` the next one from what was observed since the step began,
`traffic` says what each state means for requests. Whoever drives it writes the state and the
traffic in one transaction before anything follows them, so that a driver that is killed is taken
over by the next one, in the middle of any step.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from scoring.errors import UsageError
from serve.endpoints.traffic import Traffic, check

Phase = Literal["running", "done", "halted", "cancelled"]

DOWN_S = 10.0
"""A deployment that does not answer for so long is not promoted any further."""

_WHOLE = 10_000  # weights of a promotion are hundredths of a per cent
_PERCENT = 100

Percent = Annotated[float, msgspec.Meta(gt=0, le=_PERCENT)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment is promoted.

    Attributes:
        to: The deployment.
        steps: Its share at each step, in per cent, rising.
        soak_s: How long each step lasts at least.
        min_requests: Of its own that are seen in each step before the next one.
        success_rate: The least part of requests that may succeed (no 5xx, an answer at all).
        p95_ms: The highest latency of 95 % of its answers; None for any.
        p99_ms: Of 99 %.
        slower: How many times the p95 of the others its own may be; None for any.
    """

    to: str
    steps: tuple[Percent, ...] = (5.0, 25.0, 50.0, 100.0)
    soak_s: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    min_requests: Annotated[int, msgspec.Meta(ge=0)] = 50
    success_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.99
    p95_ms: Positive | None = None
    p99_ms: Positive | None = None
    slower: Positive | None = None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed of a deployment since the step began.

    Attributes:
        requests: To it, failed ones included.
        successes: Of those.
        p95_ms: None without answers.
        p99_ms: As above.
        down_s: For how long it has not been reachable now; 0 where it is.
    """

    requests: int = 0
    successes: int = 0
    p95_ms: float | None = None
    p99_ms: float | None = None
    down_s: float = 0.0


class Event(msgspec.Struct, frozen=True):
    """Something that a promotion did, for people.

    Attributes:
        at: Seconds since the epoch.
        text: A sentence.
    """

    at: float
    text: str


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A promotion as it stands.

    Attributes:
        plan: What it follows.
        phase: `running`, or how it ended.
        step: The number of the present step, from 0.
        since: When that began, in seconds since the epoch.
        before: The traffic to return to.
        reason: Why it was halted or cancelled.
        events: What it did, oldest first.
    """

    plan: Plan
    phase: Phase
    step: int
    since: float
    before: Traffic
    reason: str = ""
    events: tuple[Event, ...] = ()

    @property
    def share(self) -> float:
        """The share of the promoted deployment now, in per cent."""
        if self.phase in ("running", "done"):
            return self.plan.steps[self.step]
        return self.before.share(self.plan.to) * _PERCENT


def begin(plan: Plan, before: Traffic, now: float) -> Promotion:
    """The first step.

    Raises:
        UsageError: The plan does not fit the traffic.
    """
    _check(plan, before)
    text = f"{plan.to} gets {plan.steps[0]:g} % of the requests"
    return Promotion(
        plan=plan,
        phase="running",
        step=0,
        since=now,
        before=before,
        events=(Event(now, text),),
    )


def decide(state: Promotion, candidate: Seen, others: Seen, now: float) -> Promotion:
    """What follows from what was observed; the state itself where nothing does.

    Args:
        state: As it stands.
        candidate: The promoted deployment since the step began.
        others: All others together.
        now: Seconds since the epoch.
    """
    if state.phase != "running":
        return state
    fault = _fault(state.plan, candidate, others)
    if fault:
        return _end(state, "halted", fault, now)
    plan = state.plan
    # A clock that was set back must not hold a promotion up for ever.
    waited = now - state.since >= plan.soak_s or now < state.since - plan.soak_s
    if not waited or candidate.requests < plan.min_requests:
        return state
    if state.step + 1 < len(plan.steps):
        share = plan.steps[state.step + 1]
        event = Event(now, f"{plan.to} gets {share:g} % of the requests")
        return msgspec.structs.replace(
            state, step=state.step + 1, since=now, events=(*state.events, event)
        )
    event = Event(now, f"{plan.to} is promoted")
    return msgspec.structs.replace(state, phase="done", events=(*state.events, event))


def cancel(state: Promotion, reason: str, now: float) -> Promotion:
    """The promotion, ended by its user."""
    return _end(state, "cancelled", reason, now) if state.phase == "running" else state


def traffic(state: Promotion) -> Traffic:
    """What the state means for requests."""
    if state.phase in ("halted", "cancelled"):
        return state.before
    before, to = state.before, state.plan.to
    share = round(state.plan.steps[state.step] / _PERCENT * _WHOLE)
    others = {name: weight for name, weight in before.weights.items() if name != to}
    weights = {**_spread(others, _WHOLE - share), to: share}
    # Copies would go to a deployment that gets the requests themselves now.
    shadows = tuple(shadow for shadow in before.shadows if shadow.deployment != to)
    ordered = {name: weights[name] for name in [*before.weights, to]}
    return msgspec.structs.replace(before, weights=ordered, shadows=shadows)


def describe(state: Promotion) -> str:
    """Where it stands, in one sentence."""
    plan = state.plan
    if state.phase == "running":
        number = f"step {state.step + 1} of {len(plan.steps)}"
        return f"{plan.to} is being promoted: {state.share:g} %, {number}"
    if state.phase == "done":
        return f"{plan.to} is promoted"
    return f"the promotion of {plan.to} was {state.phase}: {state.reason}"


def _end(state: Promotion, phase: Phase, reason: str, now: float) -> Promotion:
    event = Event(now, f"{phase}, all requests go where they went before: {reason}")
    return msgspec.structs.replace(state, phase=phase, reason=reason, events=(*state.events, event))


def _fault(plan: Plan, seen: Seen, others: Seen) -> str:
    """Why it must not go on; empty for no reason.

    Failures count before there are enough requests: as soon as even nothing but successes could
    not bring the rate back in time.
    """
    if seen.down_s >= DOWN_S:
        return f"{plan.to} has not been reachable for {seen.down_s:.0f} s"
    failures = seen.requests - seen.successes
    allowed = (1 - plan.success_rate) * max(seen.requests, plan.min_requests)
    if failures > allowed + 1e-9:
        return (
            f"{failures} of {seen.requests} requests failed, "
            f"and {plan.success_rate:.4g} of them have to succeed"
        )
    if seen.requests < max(plan.min_requests, 1):
        return ""
    return _slowness(plan, seen, others)


def _slowness(plan: Plan, seen: Seen, others: Seen) -> str:
    for name, limit in (("p95", plan.p95_ms), ("p99", plan.p99_ms)):
        value = seen.p95_ms if name == "p95" else seen.p99_ms
        if limit is not None and value is not None and value > limit:
            return f"its {name} is {value:.4g} ms, and {limit:g} ms are allowed"
    comparable = others.requests >= max(plan.min_requests, 1) and others.p95_ms is not None
    if plan.slower is not None and comparable and seen.p95_ms is not None:
        assert others.p95_ms is not None
        if seen.p95_ms > plan.slower * others.p95_ms:
            return (
                f"its p95 is {seen.p95_ms:.4g} ms, more than {plan.slower:g} times the "
                f"{others.p95_ms:.4g} ms of the others"
            )
    return ""


def _spread(weights: dict[str, int], whole: int) -> dict[str, int]:
    """Whole numbers in the proportions of these weights whose sum is `whole`."""
    total = sum(weights.values())
    if not total:
        return dict.fromkeys(weights, 0)
    exact = {name: weight * whole / total for name, weight in weights.items()}
    found = {name: int(value) for name, value in exact.items()}
    largest = sorted(exact, key=lambda name: (found[name] - exact[name], name))
    for name in largest[: whole - sum(found.values())]:
        found[name] += 1
    return found


def _check(plan: Plan, before: Traffic) -> None:
    if not plan.steps or list(plan.steps) != sorted(set(plan.steps)):
        raise UsageError(
            "The steps of a promotion have to rise.", hint="For example --steps 5,25,50,100."
        )
    if not any(weight for name, weight in before.weights.items() if name != plan.to):
        raise UsageError(
            f"All requests go to {plan.to!r} already.",
            hint="Promote another deployment.",
        )
    if before.share(plan.to) * _PERCENT > plan.steps[0]:
        raise UsageError(
            f"{plan.to!r} has {before.share(plan.to) * _PERCENT:g} % of the requests already.",
            hint="Begin with at least that share: --steps.",
        )
    check(before)
