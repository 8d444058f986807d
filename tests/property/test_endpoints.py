"""Promotions driven by chance, routing by weights, counts of workers that come and go."""

from __future__ import annotations

import contextlib
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoring.errors import FieldpostError, UsageError
from serve.endpoints import kubernetes_objects, promotion
from serve.endpoints.front.stats import Counts, Report, added, merged, since
from serve.endpoints.front.tunnel import Frames, goaway
from serve.endpoints.promotion import Plan, Seen
from serve.endpoints.routing import Router
from serve.endpoints.traffic import HeaderRule, Shadow, Traffic, check, from_builtins, parse
from serve.endpoints.window import Window

NAMES = ("a", "b", "c", "d")
weights_ = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 1000), min_size=2).filter(
    lambda found: sum(found.values()) > 0
)


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    weights = draw(weights_)
    resting = [name for name in NAMES if not weights.get(name)]
    shadows = draw(st.lists(st.sampled_from(resting), unique=True)) if resting else []
    rules = draw(st.lists(st.sampled_from(["x-a", "x-b", "x-c"]), unique=True))
    return check(
        Traffic(
            weights=weights,
            rules=tuple(HeaderRule(rule, "1", draw(st.sampled_from(NAMES))) for rule in rules),
            sticky=draw(st.sampled_from(["", "x-user"])),
            shadows=tuple(Shadow(name, 50.0) for name in shadows),
        )
    )


plans = st.builds(
    Plan,
    to=st.sampled_from(NAMES),
    steps=st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(
        lambda found: tuple(float(step) for step in sorted(found))
    ),
    soak_s=st.floats(0, 100),
    min_requests=st.integers(0, 50),
    success_rate=st.floats(0, 1),
    p95_ms=st.none() | st.floats(1, 1000),
    slower=st.none() | st.floats(0.5, 3),
)


@st.composite
def seens(draw: st.DrawFn) -> Seen:
    requests = draw(st.integers(0, 200))
    p95 = draw(st.none() | st.floats(0.1, 2000))
    return Seen(
        requests=requests,
        successes=draw(st.integers(0, requests)),
        p95_ms=p95,
        p99_ms=None if p95 is None else p95 * 1.5,
        down_s=draw(st.sampled_from([0.0, 0.0, 0.0, 5.0, 20.0])),
    )


def begun(plan: Plan, before: Traffic) -> promotion.Promotion | None:
    try:
        return promotion.begin(plan, before, 1000.0)
    except UsageError:
        return None


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(plans, traffics(), st.lists(st.tuples(seens(), seens(), st.floats(-50, 200)), max_size=30))
def test_a_promotion_goes_up_step_by_step_or_back_to_what_was(
    plan: Plan, before: Traffic, observed: list[tuple[Seen, Seen, float]]
) -> None:
    state = begun(plan, before)
    if state is None:
        return
    now = 1000.0
    for candidate, others, passed in observed:
        now += passed
        old, state = state, promotion.decide(state, candidate, others, now)
        wished = check(promotion.traffic(state))
        if old.phase != "running":
            assert state == old  # what has ended stays
        elif state.phase == "running":
            assert state.step in (old.step, old.step + 1)
        elif state.phase == "done":
            assert state.step == len(plan.steps) - 1
        if state.phase == "halted":
            assert wished == before
            assert state.reason
        else:
            assert sum(wished.weights.values()) == 10_000
            assert wished.weights[plan.to] == round(plan.steps[state.step] * 100)
            assert plan.to not in {shadow.deployment for shadow in wished.shadows}
        if state.step > old.step or (state.phase == "done" and old.phase == "running"):
            assert candidate.requests >= plan.min_requests
            failures = candidate.requests - candidate.successes
            assert (
                failures
                <= (1 - plan.success_rate) * max(candidate.requests, plan.min_requests) + 1e-6
            )
            assert candidate.down_s < promotion.DOWN_S
        # What a driver that was killed reads is what it wrote.
        text = msgspec.json.encode(state)
        assert msgspec.json.decode(text, type=promotion.Promotion) == state


@given(plans, traffics())
def test_the_others_keep_their_proportions(plan: Plan, before: Traffic) -> None:
    state = begun(plan, before)
    if state is None:
        return
    wished = promotion.traffic(state).weights
    others = {name: weight for name, weight in before.weights.items() if name != plan.to}
    left = 10_000 - wished[plan.to]
    for name, weight in others.items():
        assert abs(wished[name] - left * weight / sum(others.values())) <= 1
    assert promotion.traffic(promotion.cancel(state, "by hand", 2000.0)) == before


def test_failures_halt_before_there_are_enough_requests() -> None:
    plan = Plan(to="b", min_requests=100, success_rate=0.99, soak_s=1e6)
    state = promotion.begin(plan, Traffic(weights={"a": 1}), 0)
    assert promotion.decide(state, Seen(requests=5, successes=4), Seen(), 1) == state
    halted = promotion.decide(state, Seen(requests=5, successes=3), Seen(), 1)
    assert halted.phase == "halted"


@pytest.mark.parametrize(
    ("seen", "others", "word"),
    [
        (Seen(requests=100, successes=100, p95_ms=60), Seen(), "p95"),
        (Seen(requests=100, successes=100, p95_ms=9, p99_ms=200), Seen(), "p99"),
        (Seen(requests=100, successes=100, p95_ms=40), Seen(requests=100, p95_ms=10), "times"),
        (Seen(down_s=11), Seen(), "reachable"),
    ],
)
def test_slow_or_absent_deployments_are_halted(seen: Seen, others: Seen, word: str) -> None:
    plan = Plan(to="b", p95_ms=50, p99_ms=100, slower=3)
    state = promotion.begin(plan, Traffic(weights={"a": 1}), 0)
    halted = promotion.decide(state, seen, others, 1)
    assert halted.phase == "halted"
    assert word in halted.reason


@pytest.mark.parametrize("steps", [(), (50.0, 10.0), (10.0, 10.0)])
def test_steps_have_to_rise(steps: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="rise"):
        promotion.begin(Plan(to="b", steps=steps), Traffic(weights={"a": 1}), 0)


# Routing


@given(traffics(), st.integers(0, 2**32))
def test_requests_go_only_where_they_may(traffic: Traffic, seed: int) -> None:
    router, chance = Router(traffic), random.Random(seed)
    allowed = {name for name, weight in traffic.weights.items() if weight}
    tried: set[str] = set()
    while (name := router.choose([(b"x-user", b"u")], chance.random, without=tried)) is not None:
        assert name in allowed - tried
        tried.add(name)
    assert tried == allowed
    for rule in traffic.rules:
        headers = [(rule.header.encode(), b"1")]
        assert router.choose(headers, chance.random) == rule.deployment
        assert router.choose(headers, chance.random, without={rule.deployment}) is None


@given(traffics(), st.sets(st.sampled_from(NAMES)), st.integers(0, 2**32))
def test_those_that_answer_come_first(traffic: Traffic, well: set[str], seed: int) -> None:
    name = Router(traffic).choose([], random.Random(seed).random, prefer=lambda n: n in well)
    able = well & {each for each, weight in traffic.weights.items() if weight}
    single = sum(1 for weight in traffic.weights.values() if weight) == 1
    assert name in able or not able or single


def test_weights_are_met_within_binomial_bounds() -> None:
    weights = {"a": 70, "b": 25, "c": 5}
    router, chance, count = Router(Traffic(weights=weights)), random.Random(7), 40_000
    sticky = Router(Traffic(weights=weights, sticky="x-user"))
    drawn = Counter(router.choose([], chance.random) for _ in range(count))
    hashed = Counter(sticky.choose([(b"x-user", b"%d" % n)], chance.random) for n in range(count))
    for got in (drawn, hashed):
        for name, weight in weights.items():
            part = weight / 100
            assert abs(got[name] - part * count) < 5 * (count * part * (1 - part)) ** 0.5


def test_few_stick_elsewhere_when_weights_change() -> None:
    keys = [[(b"x-user", b"%d" % n)] for n in range(4000)]

    def homes(a: int, b: int) -> list[str | None]:
        router = Router(Traffic(weights={"a": a, "b": b}, sticky="x-user"))
        return [router.choose(key, random.random) for key in keys]

    before, after = homes(90, 10), homes(80, 20)
    moved = [(x, y) for x, y in zip(before, after, strict=True) if x != y]
    assert all(pair == ("a", "b") for pair in moved)
    assert 300 < len(moved) < 500  # a tenth


@given(traffics())
def test_traffic_is_kept_as_it_was_written(traffic: Traffic) -> None:
    assert from_builtins(msgspec.json.decode(msgspec.json.encode(traffic))) == traffic


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4), st.text(max_size=12))
def test_any_text_is_taken_or_refused(to: list[str], other: str) -> None:
    for given_ in ({"headers": [other]}, {"shadows": [other]}, {"sticky": other}):
        with contextlib.suppress(FieldpostError):  # a sentence, and nothing else
            found = parse(to, **given_)
            assert check(found) == found


@given(weights_, st.integers(0, 60))
def test_pods_are_as_many_as_there_are_to_be_and_nearest_to_the_weights(
    weights: dict[str, int], total: int
) -> None:
    found = kubernetes_objects.pods(weights, total)
    wanted = {name: weight for name, weight in weights.items() if weight}
    assert found.keys() == wanted.keys()
    assert min(found.values()) >= 1
    assert sum(found.values()) == max(total, len(wanted))
    for name, weight in wanted.items():
        exact = weight * sum(found.values()) / sum(wanted.values())
        # Those that need one pod at least take from the others.
        assert found[name] < exact + 1 or found[name] == 1
        assert found[name] > exact - len(wanted)


# Counts

answers = st.lists(st.tuples(st.sampled_from([200, 404, 499, 503]), st.floats(0, 100)), max_size=20)


def counted(given_: list[tuple[int, float]]) -> Counts:
    counts = Counts()
    for status, seconds in given_:
        counts.answered(status, seconds)
    return counts


@given(answers, answers)
def test_what_came_in_between_is_the_difference(
    first: list[tuple[int, float]], second: list[tuple[int, float]]
) -> None:
    before, after = counted(first), counted(first + second)
    found = since(after, before)
    wanted = counted(second)
    assert (found.statuses, found.buckets) == (wanted.statuses, wanted.buckets)
    assert added([before, found]).buckets == after.buckets
    assert after.requests == sum(1 for status, _ in first + second if status != 499)


@given(answers.filter(bool), st.floats(0.01, 1))
def test_quantiles_are_within_their_bucket(given_: list[tuple[int, float]], part: float) -> None:
    found = counted(given_).quantile_s(part)
    assert found is not None
    ordered = sorted(seconds for _, seconds in given_)
    true = ordered[max(0, -(-len(ordered) * part // 1).__int__() - 1)]
    assert found <= 60.0
    assert true > 60 or found <= max(0.0005, true * 3.4)


def report(worker: str, requests: int, *, up: bool = True) -> Report:
    return Report(
        worker=worker,
        generation=1,
        backends={"a": counted([(200, 0.01)] * requests)},
        shadows={},
        up={"a": up},
        weights={"a": 1},
        connections=0,
        refused={},
    )


def test_a_window_follows_workers_that_come_and_go() -> None:
    window = Window()
    window.reset([report("1", 100)])
    window.add([report("1", 110)], 0.0)
    assert window.seen(["a"], 0.0).requests == 10
    window.add([report("1", 120), report("2", 7)], 1.0)  # a new one: all of its own count
    assert window.seen(["a"], 1.0).requests == 27
    window.add([report("2", 9, up=False)], 2.0)  # the first one has gone
    window.add([report("2", 9, up=False)], 5.0)
    seen = window.seen(["a"], 5.0)
    assert (seen.requests, seen.down_s) == (29, 3.0)
    window.add([report("2", 3)], 6.0)  # taken out and put in again: counted anew
    seen = window.seen(["a"], 6.0)
    assert (seen.requests, seen.successes, seen.down_s) == (32, 32, 0.0)
    assert merged([report("1", 1), report("2", 2, up=False)]).up == {"a": False}


# HTTP/2


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_a_goaway_only_comes_between_frames(payloads: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(len(p).to_bytes(3, "big") + b"\0\0\0\0\0\1" + p for p in payloads)
    ends, place = {0}, 0
    for payload in payloads:
        place += 9 + len(payload)
        ends.add(place)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    frames, at = Frames(), 0
    for cut in [*cuts, len(wire)]:
        found = frames.boundary(wire[at:cut])
        if found is not None:
            assert at + found in ends
            assert at + found > 0
        at = cut
    assert len(goaway()) == 17
