"""What the rows of circuits share: the circuits, the samples, the peer, the rounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantum.pennylane import QNODE, TAPES, PennyLane
from benchmarks.results import Row
from scoring.quantum import layers
from scoring.quantum.circuit import Circuit

STRUCTURE = "local-z local-x cyclic-x local-z local-x cyclic-x"
"""6n gates with as many angles, none of which the measured qubit does not depend on."""


@dataclass
class Bench:
    """One run.

    Attributes:
        peer: PennyLane's process; None where it cannot be installed.
        missing: Name to the reason, of peers that could not be measured.
        rounds: How often each is measured, in turn; the best counts.
    """

    peer: PennyLane | None
    missing: dict[str, str] = field(default_factory=dict)
    rounds: int = 3


def circuit(qubits: int) -> Circuit:
    gates = layers.parse(STRUCTURE, qubits)
    angles = np.random.default_rng(qubits).uniform(-np.pi, np.pi, len(gates))
    return Circuit(qubits, tuple(gates), tuple(angles))


def states(qubits: int, samples: int) -> NDArray[np.float64]:
    found = np.random.default_rng(1).normal(size=(samples, 1 << qubits))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def rate(work: Callable[[], object], samples: int, least_s: float = 0.2) -> float:
    """Samples in a second: the best of the runs that fit into a moment, after one that warms up."""
    work()
    best, spent = np.inf, 0.0
    while spent < least_s:
        begun = time.perf_counter()
        work()
        seconds = time.perf_counter() - begun
        best, spent = min(best, seconds), spent + seconds
    return samples / float(best)


def beside(
    bench: Bench,
    work: str,
    ours: Callable[[], float],
    asked: Circuit,
    peer_states: NDArray[np.float64],
    *,
    title: str,
    multiple: float,
    notes: str = "",
) -> Row:
    """A row of samples per second: ours and PennyLane's in turn, the best of each."""
    figures: dict[str, float] = {}
    mine = 0.0
    for _ in range(bench.rounds):
        mine = max(mine, ours())
        if bench.peer is None:
            continue
        for name, kind in ((TAPES, "tapes"), (QNODE, "qnode")):
            found = bench.peer.rate(f"{work} {kind}", asked, peer_states)
            figures[name] = max(figures.get(name, 0.0), found)
    ratio = mine / figures[TAPES] if figures else None
    reached = ratio is not None and ratio >= multiple
    target = f"at least {multiple:g} x {TAPES}"
    row = Row(title, "samples/s", mine, target, reached, figures, ratio, notes=notes)
    row.missing = dict(bench.missing)
    return row
