"""One circuit on every target: a local process, Docker and Podman give the same answers.

Each model is one package; only what runs it differs. A minute with Docker, as much with
Podman.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from scoring.quantum import document, simulate
from scoring.quantum.circuit import Circuit, Model
from scoring.quantum.compile.compiler import near_threshold
from serve.registry.records import Package
from tests.support.circuits import EVERY_STEP, against_rest, random_circuit, rows_for
from tests.support.crews import Yard

pytest.importorskip("onnx")
pytestmark = pytest.mark.timeout(600)

TOLERANCE = 1e-12
MODELS: dict[str, Model] = {
    **{f"n{n}": random_circuit(n, 4 * n, n, most_controls=min(4, n - 1)) for n in (2, 4, 7, 10)},
    "words": random_circuit(4, 20, 20, classes=("no", "yes")),
    "several": random_circuit(5, 30, 21, measured=2, classes=("a", "b", "c")),
    "steps": random_circuit(4, 20, 22, encoding=EVERY_STEP),
    "rest": against_rest(),
}
CASES = [("docker", name) for name in MODELS] + [("podman", name) for name in ("n4", "rest")]
"""Into Podman each package is loaded whole, which takes half a minute on a busy machine."""


def requests_for(model: Model) -> list[Any]:
    """What clients send: each form, and what is wrong in some way."""
    rows = rows_for(model, 24).tolist()
    width = len(rows[0])
    return [
        {"data": rows},
        {"inputs": {"X": rows}},
        {"instances": rows[:1]},
        {"data": [[0.0] * width]},
        {"data": [[1] * (width + 1)]},
        {"data": [["1"] * width]},
        {"data": [[None] * width]},
        {"data": []},
        {"rows": rows},
        {},
    ]


def answers(url: str, model: Model) -> list[tuple[int, Any]]:
    """What a deployment answers to all of them."""
    with httpx.Client(timeout=60) as client:
        found = [client.post(f"{url}/score", json=body) for body in requests_for(model)]
    return [(each.status_code, each.json()) for each in found]


class Bench:
    """Packages, and what a local process answers for each: made when they are asked for."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._packages: dict[str, Package] = {}
        self._local: dict[str, list[tuple[int, Any]]] = {}

    def package(self, name: str) -> Package:
        if name not in self._packages:
            path = self.yard.folder / f"{name}.circuit.json"
            document.save(MODELS[name], path)
            version = self.yard.workspace.models.register(name, path)
            self._packages[name] = self.yard.workspace.packages.build(version)
        return self._packages[name]

    def local(self, name: str) -> list[tuple[int, Any]]:
        if name not in self._local:
            handle = self.yard.workspace.deploy(f"local-{name}", self.package(name), target="local")
            try:
                self._local[name] = answers(handle.url, MODELS[name])
            finally:
                handle.stop()
        return self._local[name]


@pytest.fixture(scope="module")
def benches(
    tmp_path_factory: pytest.TempPathFactory, base_rootfs: Path, request: pytest.FixtureRequest
) -> Iterator[dict[str, Bench]]:
    found: dict[str, Bench] = {}

    class Benches(dict[str, Bench]):
        def __missing__(self, kind: str) -> Bench:
            engine = request.getfixturevalue(f"{kind}_engine")
            workspace = next(iter(found.values())).yard.workspace if found else None
            folder = tmp_path_factory.mktemp(kind)
            yard = Yard(folder, engine, f"rootfs:{base_rootfs}", workspace)
            found[kind] = self[kind] = Bench(yard)
            if len(found) > 1:  # one package each, whatever runs it
                found[kind]._packages = next(iter(found.values()))._packages
                found[kind]._local = next(iter(found.values()))._local
            return found[kind]

    yield Benches()
    for each in list(found.values())[:1]:
        each.yard.workspace.close()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_container_answers_as_a_local_process(
    benches: dict[str, Bench], kind: str, name: str
) -> None:
    bench = benches[kind]
    wanted = bench.local(name)
    handle = bench.yard.deploy(f"{kind}-{name}", bench.package(name))
    try:
        found = answers(handle.url, MODELS[name])
    finally:
        bench.yard.remove(f"{kind}-{name}")
    assert [status for status, _ in found] == [status for status, _ in wanted]
    assert [status for status, _ in found][:4] == [200] * 4
    assert {status for status, _ in found[4:]} == {400}
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        assert one == other  # to the last bit: the same bytes run
    assert_right(MODELS[name], found[0][1])


def assert_right(model: Model, answer: Any) -> None:
    """Equal to the state vector, too: probabilities, and labels off the threshold."""
    wanted = simulate.class_probabilities(model, rows_for(model, 24))
    assert np.abs(np.array(answer["probabilities"]) - wanted).max() < TOLERANCE
    clear = ~near_threshold(wanted, TOLERANCE)
    expected = [model.classes[k] for k in wanted.argmax(axis=1)]
    for found, right, sure in zip(answer["predictions"], expected, clear, strict=True):
        assert found == right or not sure


def test_the_models_are_of_every_kind() -> None:
    assert {isinstance(model, Circuit) for model in MODELS.values()} == {True, False}
