"""What is counted of each deployment behind a front, and how it is told. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

import msgspec

BOUNDS_S = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.011, 0.015, 0.02, 0.03, 0.04, 0.06,
    0.08, 0.11, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.1, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""The upper ends of the latency buckets; the last bucket has none."""

CLIENT_GONE = 499
"""Counted where the client left before its answer: neither a success nor a failure."""

SERVER_ERRORS = 500


def _no_buckets() -> list[int]:
    return [0] * (len(BOUNDS_S) + 1)


class Counts(msgspec.Struct):
    """Of one deployment, since the front's worker began.

    Attributes:
        statuses: Answers by status.
        buckets: Answers by latency, from the whole head of the request to the end of the answer.
        seconds: Of all answers together.
        failures: Requests that got no answer from it, by reason: `connect`, `cut`, `timeout`,
            `invalid`.
        retries: Of those, the ones that another deployment, or connection, then took.
        tunnels: HTTP/2 connections.
        in_flight: Now.
    """

    statuses: dict[int, int] = {}
    buckets: list[int] = msgspec.field(default_factory=_no_buckets)
    seconds: float = 0.0
    failures: dict[str, int] = {}
    retries: int = 0
    tunnels: int = 0
    in_flight: int = 0

    def answered(self, status: int, seconds: float) -> None:
        """Counts an answer."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds

    def failed(self, reason: str) -> None:
        """Counts a request without an answer."""
        self.failures[reason] = self.failures.get(reason, 0) + 1

    @property
    def requests(self) -> int:
        """Answers and failures, without clients that left."""
        return sum(self.statuses.values()) + self.failed_requests - self.left

    @property
    def failed_requests(self) -> int:
        """Requests without an answer."""
        return sum(self.failures.values())

    @property
    def left(self) -> int:
        """Clients that left before their answer."""
        return self.statuses.get(CLIENT_GONE, 0)

    @property
    def successes(self) -> int:
        """Answers that were no server's error."""
        return sum(n for status, n in self.statuses.items() if status < SERVER_ERRORS) - self.left

    def quantile_s(self, part: float) -> float | None:
        """The latency that this part of the answers stayed below; None without answers.

        It is as exact as the buckets are: the place within one is interpolated.
        """
        total = sum(self.buckets)
        rank = part * total
        before = 0
        for number, count in enumerate(self.buckets):
            if count and before + count >= rank:
                low = BOUNDS_S[number - 1] if number else 0.0
                high = BOUNDS_S[number] if number < len(BOUNDS_S) else low
                return low + (high - low) * (rank - before) / count
            before += count
        return None


def added(many: Iterable[Counts]) -> Counts:
    """The sum of several workers' counts."""
    total = Counts()
    for each in many:
        for status, count in each.statuses.items():
            total.statuses[status] = total.statuses.get(status, 0) + count
        for reason, count in each.failures.items():
            total.failures[reason] = total.failures.get(reason, 0) + count
        total.buckets = [a + b for a, b in zip(total.buckets, each.buckets, strict=True)]
        total.seconds += each.seconds
        total.retries += each.retries
        total.tunnels += each.tunnels
        total.in_flight += each.in_flight
    return total


def since(now: Counts, before: Counts) -> Counts:
    """What came between two counts of the same worker."""
    return Counts(
        statuses=_difference(now.statuses, before.statuses),
        buckets=[a - b for a, b in zip(now.buckets, before.buckets, strict=True)],
        seconds=now.seconds - before.seconds,
        failures=_difference(now.failures, before.failures),
        retries=now.retries - before.retries,
        tunnels=now.tunnels - before.tunnels,
        in_flight=now.in_flight,
    )


def _difference(now: Mapping[int, int] | Mapping[str, int], before: Mapping) -> dict:  # type: ignore[type-arg]
    found = {key: count - before.get(key, 0) for key, count in now.items()}
    return {key: count for key, count in found.items() if count}


class ShadowCounts(msgspec.Struct):
    """Of one shadow: what became of its copies.

    Attributes:
        counts: As of a deployment that answers.
        dropped: Copies that were never sent: too many under way, too long, or nowhere to send.
    """

    counts: Counts = msgspec.field(default_factory=Counts)
    dropped: int = 0


class Report(msgspec.Struct, kw_only=True):
    """What a front's worker tells.

    Attributes:
        worker: Its process, for telling a new one's counts from an old one's.
        generation: Of the traffic that it follows.
        backends: Counts by deployment.
        shadows: Counts of copies by deployment.
        up: Whether each deployment is believed to answer.
        weights: As they are followed.
        connections: Of clients.
        refused: Requests that never went to a deployment, by status.
    """

    worker: str
    generation: int
    backends: dict[str, Counts]
    shadows: dict[str, ShadowCounts]
    up: dict[str, bool]
    weights: dict[str, int]
    connections: int
    refused: dict[int, int]


def merged(reports: Iterable[Report]) -> Report:
    """The reports of all workers as one; of `up`, the worst is told."""
    every = [*reports]
    backends = {name for each in every for name in each.backends}
    shadows = {name for each in every for name in each.shadows}
    refused: dict[int, int] = {}
    for each in every:
        for status, count in each.refused.items():
            refused[status] = refused.get(status, 0) + count
    return Report(
        worker=",".join(each.worker for each in every),
        generation=min((each.generation for each in every), default=0),
        backends={n: added(e.backends[n] for e in every if n in e.backends) for n in backends},
        shadows={
            name: ShadowCounts(
                added(e.shadows[name].counts for e in every if name in e.shadows),
                sum(e.shadows[name].dropped for e in every if name in e.shadows),
            )
            for name in shadows
        },
        up={n: all(e.up.get(n, True) for e in every) for n in {n for e in every for n in e.up}},
        weights=every[0].weights if every else {},
        connections=sum(each.connections for each in every),
        refused=refused,
    )
