"""Whole trainings: they get better, end for a reason, and go on where they were broken off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.errors import TrainingDataError
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.training import checkpoint as checkpoints
from scoring.quantum.training.options import TrainingOptions
from scoring.quantum.training.problem import Problem
from scoring.quantum.training.run import Trained, train
from scoring.quantum.training.state import RunState, initial
from tests.support import dense

CIRCUIT = Circuit(
    2,
    (Gate(0, "Y", 0), Gate(1, "Y", 1), Gate(1, "X", 2, (0,)), Gate(1, "Y", 3)),
    (0.0,) * 4,
)
STATES = dense.states(CIRCUIT, samples=40, seed=2)
LABELS = (dense.outcomes(CIRCUIT.at([0.7, -1.2, 2.0, 0.4]), STATES)[:, 1] > 0.45).astype(np.intp)
STARTS = [[0.1, 0.2, 0.3, 0.4], [1.0, -1.0, 1.0, -1.0], [2.0, 2.0, -2.0, 0.5]]
KINDS = ["library", "adam", "lbfgs"]


def problem(**options: Any) -> Problem:
    return Problem(CIRCUIT, STATES, LABELS, TrainingOptions(**options))


class Stopped(Exception):  # noqa: N818
    """Stands for a kill."""


@pytest.mark.parametrize("optimizer", KINDS)
def test_every_optimizer_gets_better(optimizer: str) -> None:
    found = train(problem(optimizer=optimizer, max_epochs=40), STARTS, seed=0)
    assert found.misses <= 6
    assert found.misses == min(each["misses"] for each in found.starts)
    assert found.starts[found.start]["misses"] == found.misses
    for each in found.starts:
        assert each["ended"] in {"tolerance", "stalls", "max_epochs", "converged"}
        scores = np.minimum.accumulate(each["history"])
        assert scores[-1] <= scores[0]


def test_no_epochs_leave_the_best_start_point() -> None:
    found = train(problem(max_epochs=0), STARTS)
    assert found.parameters == STARTS[found.start]
    assert found.misses == min(each["start_misses"] for each in found.starts)


def test_the_loop_ends_at_the_tolerance() -> None:
    found = train(problem(tolerance=0.5, max_epochs=50), STARTS)
    assert {each["ended"] for each in found.starts} == {"tolerance"} or all(
        each["ended"] in {"tolerance", "stalls"} for each in found.starts
    )
    assert found.starts[0]["epochs"] < 50


def test_the_loop_ends_after_too_many_stalls() -> None:
    found = train(problem(learning_rate=1e-9, max_epochs=50, max_stalls=3), STARTS)
    assert [each["ended"] for each in found.starts] == ["stalls"] * 3
    assert [each["epochs"] for each in found.starts] == [4] * 3


def test_patience_ends_adam_early() -> None:
    found = train(problem(optimizer="adam", patience=2, max_epochs=500), STARTS)
    assert all(each["ended"] == "patience" for each in found.starts)
    assert all(each["epochs"] < 500 for each in found.starts)


@pytest.mark.parametrize("period", [1, 3, 100])
def test_a_scoring_period_looks_less_often(period: int) -> None:
    found = train(problem(scoring_period=period, minibatch_size=2), STARTS)
    assert found.misses <= min(each["start_misses"] for each in found.starts)


def broken_off(path: Path, after: int, jobs: int = 1, **options: Any) -> Trained:
    """Trains until it is stopped after some rounds, then once more to the end."""
    rounds = 0

    def stop(_states: Sequence[RunState]) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == after:
            raise Stopped

    with pytest.raises(Stopped):
        train(problem(**options), STARTS, seed=5, jobs=jobs, checkpoint=path, progress=stop)
    assert path.exists()
    return train(problem(**options), STARTS, seed=5, jobs=jobs, checkpoint=path)


@pytest.mark.parametrize("optimizer", KINDS)
@pytest.mark.parametrize("after", [1, 3, 7])
def test_a_training_that_was_broken_off_ends_alike(
    optimizer: str, after: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "max_epochs": 60, "learning_rate": 0.02}
    whole = train(problem(**options), STARTS, seed=5)
    if optimizer == "lbfgs" and after == 7:
        after = 2
    found = broken_off(tmp_path / "half.json", after, **options)
    assert found == whole
    assert not (tmp_path / "half.json").exists()


def test_measured_gradients_go_on_with_the_same_chance(tmp_path: Path) -> None:
    options: dict[str, Any] = {"gradient": "sampled", "n_measurements": 50, "max_epochs": 5}
    whole = train(problem(**options), STARTS, seed=5)
    assert broken_off(tmp_path / "c", 2, **options) == whole


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"

    def stop(_states: Sequence[RunState]) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train(problem(), STARTS, seed=5, checkpoint=path, progress=stop)
    kept = path.read_bytes()
    for tried, seed in ((problem(learning_rate=0.2), 5), (problem(), 6)):
        with pytest.raises(TrainingDataError, match="other samples, options or seed"):
            train(tried, STARTS, seed=seed, checkpoint=path)
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda _: b"[]",
        lambda data: data[: len(data) // 2],
        lambda data: json.dumps(json.loads(data) | {"version": 9}).encode(),
        lambda data: json.dumps(json.loads(data) | {"states": [{"x": 1}]}).encode(),
        lambda data: data.replace(b'"PCG64"', b'"MT19937"'),
    ],
)
def test_a_damaged_checkpoint_is_refused(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    name = checkpoints.fingerprint(problem(), 0, STARTS)
    checkpoints.save(path, name, [initial(STARTS[0], np.random.SeedSequence(0))])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(TrainingDataError, match="checkpoint") as caught:
        train(problem(), STARTS, checkpoint=path)
    assert caught.value.where == str(path)
    assert "Remove the file" in caught.value.hint


def test_progress_hears_of_every_round() -> None:
    heard: list[int] = []
    train(
        problem(max_epochs=3),
        STARTS,
        progress=lambda states: heard.append(sum(state.epoch for state in states)),
    )
    assert heard == sorted(heard)
    assert len(heard) >= 3


@pytest.mark.parametrize("starts", [[], [[1.0]], [[1.0] * 4, [1.0] * 5]])
def test_start_points_have_to_fit(starts: list[list[float]]) -> None:
    with pytest.raises(TrainingDataError, match="has to have 4 parameters"):
        train(problem(), starts)


def test_several_measured_qubits_learn_in_every_loop() -> None:
    both = Circuit(2, CIRCUIT.gates, CIRCUIT.parameters, measured=(0, 1), classes=(0, 1, 2))
    labels = dense.outcomes(both.at([0.7, -1.2, 2.0, 0.4]), STATES)[:, :3].argmax(axis=1)
    for optimizer in KINDS:
        options = TrainingOptions(optimizer=optimizer, max_epochs=30)
        found = train(Problem(both, STATES, labels, options), STARTS, seed=0)
        assert found.bias == 0.0
        assert found.misses <= 12


def test_a_checkpoint_goes_with_what_a_killed_training_left(tmp_path: Path) -> None:
    checkpoint = tmp_path / "half.json"
    for path in (checkpoint, tmp_path / ".fieldpost-tmp-0123456789abcdef", tmp_path / "mine.json"):
        path.write_text("{}")
    checkpoints.remove(checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
