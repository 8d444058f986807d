"""From labelled rows to a trained model: register, structure, start points, one circuit or several.

The estimator is a thin face of `learn`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.errors import CircuitError, TrainingDataError
from scoring.quantum import layers, memory, preparation
from scoring.quantum.circuit import (
    Circuit,
    Gate,
    Label,
    Model,
    OneVersusRest,
    check_qubits,
    parameters_needed,
)
from scoring.quantum.circuit import qubits_needed as needed_by
from scoring.quantum.encoding import encode
from scoring.quantum.features import Encoding, Step, qubits_for
from scoring.quantum.progress import bar
from scoring.quantum.training import checkpoint as checkpoints
from scoring.quantum.training.options import TrainingOptions
from scoring.quantum.training.problem import Problem, require_gates
from scoring.quantum.training.run import Trained, train

DEFAULT_STRUCTURE = "local-z local-x cyclic-x partial-x:-1"
DEFAULT_ALONE = "local-z local-x"
MULTICLASS = ("auto", "one-vs-rest", "qubits")

Schedule = Sequence[int] | None
Starts = int | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Samples:
    """Labelled rows.

    Attributes:
        rows: Of the shape (samples, features).
        labels: The class of each, as a place in `classes`.
        classes: Their names.
    """

    rows: NDArray[np.float64]
    labels: NDArray[np.intp]
    classes: tuple[Label, ...]


def learn(
    samples: Samples,
    options: TrainingOptions,
    *,
    structure: str | Sequence[Gate] | None = None,
    encoding: str | Sequence[Step] = (),
    qubits: int | None = None,
    multiclass: str = "auto",
    starts: Starts = 4,
    seed: int = 0,
    jobs: int = 1,
    checkpoint: Path | None = None,
    progress: bool = False,
    schedules: tuple[Schedule, Schedule] = (None, None),
) -> Model:
    """Trains a model; see `SequentialClassifier` for what the arguments mean.

    Raises:
        TrainingDataError: Nothing can be learned from the samples with these options.
        CircuitError: The structure or the encoding does not fit the rows.
        CircuitTooLargeError: The states would not fit into memory.
    """
    blank = plan(samples, structure, encoding, qubits, multiclass)
    states = encode(blank, samples.rows)
    places = [_places(name, given, len(states)) for name, given in _named(schedules)]

    alone = len(samples.classes) == 2 or not blank.is_binary  # noqa: PLR2004

    def one(classes: tuple[Label, ...], labels: NDArray[np.intp], number: int) -> Circuit:
        circuit = replace(blank, classes=classes)
        problem = Problem(circuit, states, labels, options, *places)
        points = start_points(circuit, starts, seed + number)
        path = checkpoint and _part(checkpoint, number)
        with bar(enabled=progress, starts=len(points), epochs=options.max_epochs) as told:
            found = train(
                problem,
                points,
                seed=seed + number,
                jobs=jobs,
                checkpoint=path,
                keep_checkpoint=not alone,
                progress=told,
            )
        record = _record(found, structure, options, seed + number, len(labels))
        return replace(circuit.at(found.parameters, found.bias), record=record)

    if alone:
        return one(samples.classes, samples.labels, 0)
    circuits = [
        one((0, 1), (samples.labels == place).astype(np.intp), place)
        for place in range(len(samples.classes))
    ]
    if checkpoint:
        for place in range(len(samples.classes)):
            checkpoints.remove(_part(checkpoint, place))
    record = {"epochs": max(circuit.record["epochs"] for circuit in circuits)}
    parts = [dict(circuit.record) for circuit in circuits]
    bare = tuple(replace(circuit, record={}) for circuit in circuits)
    return OneVersusRest(bare, samples.classes, record | {"circuits": parts})


def plan(
    samples: Samples,
    structure: str | Sequence[Gate] | None,
    encoding: str | Sequence[Step],
    qubits: int | None,
    multiclass: str,
) -> Circuit:
    """The circuit that would be trained (one of them, with one against rest), all angles zero.

    Raises:
        TrainingDataError, CircuitError, CircuitTooLargeError: As `learn`, before it begins.
    """
    if multiclass not in MULTICLASS:
        raise TrainingDataError(
            f"multiclass is {multiclass!r}; it has to be one of {', '.join(MULTICLASS)}.",
            where="multiclass",
        )
    together = len(samples.classes) > 2 and multiclass == "qubits"  # noqa: PLR2004
    measured = math.ceil(math.log2(len(samples.classes))) if together else 1
    blank = blank_circuit(samples.rows, structure, encoding, qubits, measured)
    require_gates(blank)
    _check_memory(blank, len(samples.rows))
    return blank


def _part(checkpoint: Path, number: int) -> Path:
    """Where one of several circuits keeps where it is: all of them, until all are learned."""
    return Path(f"{checkpoint}.{number}") if number else checkpoint


def blank_circuit(
    rows: NDArray[np.float64],
    structure: str | Sequence[Gate] | None,
    encoding: str | Sequence[Step],
    qubits: int | None,
    measured: int = 1,
) -> Circuit:
    """The structure on a register for these rows, all angles zero.

    Args:
        rows: The encoding's scales are taken from them.
        structure: Layers in words, gates, or None for the default.
        encoding: Words, or steps.
        qubits: The size of the register; as few as are needed by default.
        measured: How many qubits, the last ones, are measured.
    """
    if qubits is not None:
        check_qubits(qubits)
    if not isinstance(structure, str | Iterable | None):
        raise CircuitError(
            f"{structure!r} is no structure.", hint='Give layers such as "local-x", or gates.'
        )
    prepared = preparation.fit(encoding, rows)
    least = max(qubits_for(prepared.width()), measured)
    if structure is not None and not isinstance(structure, str):
        given = [Gate(*gate) for gate in structure]
        size = qubits or max(least, needed_by(given))
    else:
        size = qubits or max(least, layers.least_qubits(structure or ""))
        default = DEFAULT_STRUCTURE if size > 1 else DEFAULT_ALONE
        given = layers.parse(default if structure is None else structure, size)
    return _blank(size, given, prepared, measured)


def _blank(size: int, gates: Sequence[Gate], encoding: Encoding, measured: int) -> Circuit:
    return Circuit(
        qubits=size,
        gates=tuple(gates),
        parameters=(0.0,) * parameters_needed(gates),
        measured=tuple(range(max(0, size - measured), size)),
        classes=tuple(range(1 << min(measured, size))),
        encoding=encoding,
    )


def start_points(circuit: Circuit, starts: Starts, seed: int) -> list[list[float]]:
    """Start points as they are given, or that many drawn evenly from -π to π."""
    if isinstance(starts, int | np.integer):
        if starts < 1:
            raise TrainingDataError(f"starts is {starts}; it has to be 1 or more.", where="starts")
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x57A27,)))
        points = random.uniform(-math.pi, math.pi, (int(starts), len(circuit.parameters)))
        found: list[list[float]] = points.tolist()
        return found
    return [[float(value) for value in start] for start in starts]


def _check_memory(circuit: Circuit, samples: int) -> None:
    """Raises `CircuitTooLargeError` where the samples' states would not fit into memory."""
    memory.check(
        3 * samples << (circuit.qubits + 3),
        f"The states of {samples} samples on {circuit.qubits} qubits",
    )


def _named(schedules: tuple[Schedule, Schedule]) -> list[tuple[str, Schedule]]:
    return list(zip(("training_schedule", "validation_schedule"), schedules, strict=True))


def _places(name: str, given: Schedule, samples: int) -> NDArray[np.intp]:
    if given is None:
        return np.arange(samples)
    places = np.asarray(given)
    whole = places.ndim == 1 and places.dtype.kind in "iu"
    if not whole or not len(places) or places.min() < 0 or places.max() >= samples:
        raise TrainingDataError(
            f"{name} names samples that are not there, or none.",
            hint=f"Samples count from 0 to {samples - 1}.",
            where=name,
        )
    return places.astype(np.intp)


def _record(
    found: Trained,
    structure: str | Sequence[Gate] | None,
    options: TrainingOptions,
    seed: int,
    samples: int,
) -> dict[str, Any]:
    """What is kept of the training with the circuit."""
    best = found.starts[found.start]
    return {
        "structure": structure if isinstance(structure, str) else None,
        "samples": samples,
        "misses": found.misses,
        "epochs": best["epochs"],
        "start": found.start,
        "starts": found.starts,
        "seed": seed,
        "options": asdict(options),
    }
