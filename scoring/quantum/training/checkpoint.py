"""Checkpoints of a training: where every start point is, in one file that is whole or not there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from scoring import durable
from scoring.errors import TrainingDataError
from scoring.quantum.document import digest
from scoring.quantum.training.problem import Problem
from scoring.quantum.training.state import RunState

_FORMAT = "fieldpost.circuit-training"
_VERSION = 1


def fingerprint(problem: Problem, seed: int, starts: list[list[float]]) -> str:
    """What names a training: its samples, structure, options, start points and seed."""
    found = hashlib.sha256()
    empty = problem.circuit.at([0.0] * len(problem.circuit.parameters), 0.0)
    found.update(f"{digest(empty)} {problem.options} {seed} {starts}".encode())
    for array in (problem.states, problem.labels, problem.training, problem.validation):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def save(path: Path, name: str, states: list[RunState]) -> None:
    """Writes the checkpoint atomically.

    Raises:
        WorkspaceError: It cannot be written; the one before is as it was.
    """
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "training": name,
        "states": [state.to_document() for state in states],
    }
    durable.write_bytes(path, json.dumps(document).encode(), what="the training's checkpoint")


def remove(path: Path) -> None:
    """Deletes a checkpoint that is not needed any more, and what a killed training left beside."""
    path.unlink(missing_ok=True)
    durable.sweep(path.parent)


def load(path: Path, name: str) -> list[RunState] | None:
    """The states of a training that was broken off; None where there is no checkpoint.

    Raises:
        TrainingDataError: The file is another training's checkpoint, or none at all.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = json.loads(text)
        known = document["format"] == _FORMAT and document["version"] == _VERSION
        states = [RunState.from_document(state) for state in document["states"]]
        for state in states:
            state.generator()
        same = document["training"] == name
    except (ValueError, KeyError, TypeError) as error:
        raise _not_ours(path, "is no checkpoint of a training") from error
    if not known:
        raise _not_ours(path, "is a checkpoint of another version")
    if not same:
        raise _not_ours(path, "belongs to a training with other samples, options or seed")
    return states


def _not_ours(path: Path, what: str) -> TrainingDataError:
    return TrainingDataError(
        f"The checkpoint {what}.",
        hint="Remove the file to begin anew, or name another one.",
        where=str(path),
    )
