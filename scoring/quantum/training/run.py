"""Leads every start point to its end, side by side if asked, and picks the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from scoring.errors import TrainingDataError
from scoring.quantum.training import checkpoint as checkpoints
from scoring.quantum.training import descent, library
from scoring.quantum.training.problem import Problem
from scoring.quantum.training.state import RunState, initial

Advance = Callable[[Problem, RunState], None]
Progress = Callable[[Sequence[RunState]], None]
"""Told after every round, with the states of all start points."""

_ADVANCE: dict[str, Advance] = {
    "library": library.epoch,
    "adam": descent.adam_epoch,
    "lbfgs": descent.lbfgs_leg,
}


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        parameters: The best angles.
        bias: Their bias.
        misses: Of the validation samples.
        start: Which start point they came from.
        starts: For each start point: misses before and after, epochs, why it ended, its history.
    """

    parameters: list[float]
    bias: float
    misses: int
    start: int
    starts: list[dict[str, Any]] = field(default_factory=list)


def train(
    problem: Problem,
    starts: Sequence[Sequence[float]],
    *,
    seed: int = 0,
    jobs: int = 1,
    checkpoint: Path | None = None,
    keep_checkpoint: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Trains from every start point; the one with the fewest misses wins, the first of equals.

    Args:
        problem: What is learned from, and how.
        starts: Angles to start from.
        seed: Each start point gets a generator of its own from it, so that the result does not
            depend on how many run at once.
        jobs: How many start points advance at once, each in a process of its own; -1 for all cores.
        checkpoint: A file that is kept up to date, and from which a training that was broken off
            goes on; it is removed at the end.
        keep_checkpoint: It is not: this training is a part of a longer one.
        progress: Told after every round.

    Raises:
        TrainingDataError: The start points do not fit the structure, or the checkpoint is of
            another training.
    """
    points = _checked(problem, starts)
    name = checkpoints.fingerprint(problem, seed, points)
    states = checkpoints.load(checkpoint, name) if checkpoint else None
    if states is None:
        seeds = np.random.SeedSequence(seed).spawn(len(points))
        states = [initial(point, each) for point, each in zip(points, seeds, strict=True)]
    elif progress:
        progress(states)
    states = _to_the_end(problem, states, jobs, checkpoint, name, progress)
    result = _best(problem, states)
    if checkpoint and not keep_checkpoint:
        checkpoints.remove(checkpoint)
    return result


def _checked(problem: Problem, starts: Sequence[Sequence[float]]) -> list[list[float]]:
    points = [[float(value) for value in start] for start in starts]
    needed = len(problem.circuit.parameters)
    if not points or any(len(point) != needed for point in points):
        raise TrainingDataError(
            f"Every start point has to have {needed} parameters, as the structure has.",
            hint="Give a list of lists of angles, or how many shall be drawn by chance.",
            where="starts",
        )
    if not np.isfinite(points).all():
        raise TrainingDataError("A start point has an angle that is not finite.", where="starts")
    return points


def _to_the_end(
    problem: Problem,
    states: list[RunState],
    jobs: int,
    checkpoint: Path | None,
    name: str,
    progress: Progress | None,
) -> list[RunState]:
    """Rounds of one epoch; without anyone to tell, whole start points at once.

    In one process the start points come one after another, else all that go on take part.
    """
    told = checkpoint is not None or progress is not None
    while open_ones := [place for place, state in enumerate(states) if not state.done]:
        chosen = open_ones if jobs != 1 else open_ones[:1]
        for place, state in zip(
            chosen,
            _advanced(problem, [states[place] for place in chosen], jobs, to_the_end=not told),
            strict=True,
        ):
            states[place] = state
        if checkpoint:
            checkpoints.save(checkpoint, name, states)
        if progress:
            progress(states)
    return states


def _advanced(
    problem: Problem, states: list[RunState], jobs: int, *, to_the_end: bool
) -> list[RunState]:
    if jobs == 1 or len(states) == 1:
        return [_advance(problem, state, to_the_end=to_the_end) for state in states]
    joblib = import_module("joblib")
    work = joblib.delayed(_advance)
    found: list[RunState] = joblib.Parallel(n_jobs=jobs)(
        work(problem, state, to_the_end=to_the_end) for state in states
    )
    return found


def _advance(problem: Problem, state: RunState, *, to_the_end: bool) -> RunState:
    advance = _ADVANCE[problem.options.optimizer]
    advance(problem, state)
    while to_the_end and not state.done:
        advance(problem, state)
    return state


def _best(problem: Problem, states: Sequence[RunState]) -> Trained:
    """Fits each start point's bias on the validation samples and compares the misses there."""
    ends = [_end(problem, state) for state in states]
    start = min(range(len(ends)), key=lambda place: ends[place][1])
    bias, misses = ends[start]
    notes = [
        {
            "start_misses": state.memory.get("start_misses"),
            "misses": end[1],
            "epochs": state.epoch,
            "ended": state.done,
            "history": state.history,
        }
        for state, end in zip(states, ends, strict=True)
    ]
    return Trained(list(states[start].best_parameters), bias, misses, start, notes)


def _end(problem: Problem, state: RunState) -> tuple[float, int]:
    random = state.generator()
    labels = problem.labels[problem.validation]
    outcomes = problem.outcomes(state.best_parameters, random, problem.validation)
    bias = problem.fit_bias(outcomes, labels, state.best_bias)
    return bias, problem.misses(outcomes, bias, labels)
