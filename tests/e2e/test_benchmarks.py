"""The benchmark's own machinery against real servers: ours and the sketches."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import contenders, rate
from benchmarks.contender import Contender
from benchmarks.features import Features
from benchmarks.load import LoadError, TooSlowError
from benchmarks.models import make_iris, make_pixels
from benchmarks.running import Running, Site, http_labels

pytest.importorskip("skl2onnx")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"iris": make_iris(folder), "pixels": make_pixels(folder)}


@pytest.fixture
def site(tmp_path: Path, models: dict[str, Path]) -> Site:
    return Site(tmp_path, models)


@pytest.mark.parametrize(
    ("contender", "work"),
    [
        (contenders.BARE_SCORE, "score"),
        (contenders.BARE_V2, "v2"),
        (contenders.BARE_LARGE, "large"),
        (contenders.BARE_BINARY, "binary"),
    ],
    ids=["score", "v2", "large", "binary"],
)
def test_sketches_answer_rightly(site: Site, contender: Contender, work: str) -> None:
    with site.running([contender], work) as [server]:
        assert http_labels(server.port, server.ask) == site.labels(server.ask.model)
    assert not site.missing


@pytest.mark.parametrize("work", ["score", "v2", "large", "binary"])
def test_our_server_answers_the_same(site: Site, work: str) -> None:
    with site.running([contenders.ours({}, {})], work) as servers:
        assert [server.name for server in servers] == ["ours"], site.missing


def test_features_are_on_where_they_are_said_to_be(site: Site, tmp_path: Path) -> None:
    features = Features.make(tmp_path)
    try:
        ours = contenders.ours(features.environment, features.headers)
        with site.running([ours], "score") as [server]:
            tail = rate.at_rate(server.url, server.ask, 200, 1.0)
            found = features.found_on(server.port)
    finally:
        features.close()
    assert tail.rate > 50
    assert found["API keys and rates"]
    assert found["metrics"]


def test_a_server_that_cannot_start_is_named(site: Site) -> None:
    command = ("{python}", "-c", "raise SystemExit('out of order')")
    broken = Contender("broken", "", command, contenders.BARE_SCORE.asks)
    with site.running([broken, contenders.BARE_SCORE], "score") as servers:
        assert [server.name for server in servers] == [contenders.BARE_SCORE.name]
    assert "out of order" in site.missing["broken"]


def test_one_error_leaves_no_figure(site: Site) -> None:
    answers: list[float | Exception] = [3.0, LoadError("a 500"), 5.0]

    def measure(_server: Running) -> float:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with site.running([contenders.BARE_SCORE], "score") as servers:
        assert site.best(servers, 3, measure) == {}
        assert site.missing == {contenders.BARE_SCORE.name: "a 500"}
        site.fresh()
        answers[:] = [3.0, TooSlowError("too slow"), 5.0]
        assert site.best(servers, 3, measure) == {contenders.BARE_SCORE.name: 5.0}
        assert not site.missing
