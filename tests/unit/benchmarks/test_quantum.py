"""The quantum benchmark's own arithmetic; PennyLane is not needed for it."""

from __future__ import annotations

import numpy as np

from benchmarks.quantum.bench import Bench, beside, circuit, rate, states
from benchmarks.quantum.published import half_moons
from scoring.quantum.cone import light_cone


def test_every_gate_of_the_circuits_counts() -> None:
    for qubits in (4, 8):
        made = circuit(qubits)
        assert len(made.gates) == 6 * qubits
        assert len(light_cone(made.gates, made.measured)) == 6 * qubits
        assert np.allclose(np.linalg.norm(states(qubits, 3), axis=1), 1)


def test_without_the_peer_nothing_is_reached() -> None:
    bench = Bench(None, {"lightning": "no network"}, rounds=1)
    row = beside(bench, "gradient", lambda: 5.0, circuit(2), states(2, 1), title="t", multiple=2.0)
    assert (row.ours, row.ratio, row.reached) == (5.0, None, False)
    assert row.missing == {"lightning": "no network"}


def test_a_rate_is_of_samples() -> None:
    assert rate(lambda: None, 10, least_s=0.001) > 10


def test_the_published_figures_are_reached() -> None:
    rows = half_moons(Bench(None))
    assert [row.ours for row in rows] == [2, 70, 60, 22, 25]
    assert all(row.reached for row in rows)
