"""A row is reached only where everyone it is held to was measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import contenders
from benchmarks.features import Features
from benchmarks.results import Row
from benchmarks.rows import Bench, Pace, _finish, _targets
from benchmarks.running import Site
from benchmarks.sink import Sink

TARGETS = {contenders.BARE_SCORE.name: 0.75, contenders.FASTAPI.name: 5.0}
PEERS = [contenders.BARE_SCORE, contenders.FASTAPI]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    features = Features({}, {}, "", tmp_path / "log", Sink.start())
    yield Bench(Site(tmp_path, {}), features, Pace())
    features.close()


@pytest.mark.parametrize(
    ("ours", "figures", "reached"),
    [
        (100.0, (100.0, 20.0), True),
        (100.0, (134.0, 10.0), False),
        (100.0, (100.0, 20.1), False),
        (100.0, (100.0, None), False),
        (100.0, (None, 10.0), False),
    ],
    ids=["all", "first-missed", "second-missed", "second-absent", "first-absent"],
)
def test_reached(
    bench: Bench, ours: float, figures: tuple[float | None, ...], reached: bool
) -> None:
    pairs = zip(TARGETS, figures, strict=True)
    peers = {name: figure for name, figure in pairs if figure is not None}
    row = Row("iris", "requests/s", ours, _targets(TARGETS), True, peers)
    done = _finish(row, bench, PEERS, lambda name: ours >= TARGETS[name] * peers[name], TARGETS)
    assert done.reached is reached
    assert ("not shown beside" in done.notes) is (len(peers) < len(TARGETS))


def test_absent_peers_have_their_reason(bench: Bench) -> None:
    bench.site.missing = {"FastAPI": "no network", "someone of another row": "x"}
    row = Row("iris", "requests/s", 1.0, "", True, {})
    assert _finish(row, bench, PEERS, lambda _name: True).missing == {"FastAPI": "no network"}
