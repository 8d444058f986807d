"""The benchmark of fleets, run small: it measures what it says, and would tell if it did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.edge import moving, reconnect, rollouts, telemetry
from edge.controller.entities import Plan
from tests.support import brokers


def test_a_rollout_is_measured_to_its_end(tmp_path: Path) -> None:
    brokers.require()
    found = rollouts.measure(tmp_path, 8, Plan(waves=("100%",)))
    assert found.devices == 8
    assert 1.0 < found.seconds < 60  # it soaks for a second
    assert found.controller_s > 0
    assert found.cost_ms == pytest.approx(found.controller_s / 8 * 1000)


def test_devices_that_come_back_are_counted(tmp_path: Path) -> None:
    brokers.require()
    [row] = reconnect.rows(tmp_path, quick=True)
    assert row.reached
    assert 0 < row.ours < 60


def test_telemetry_is_counted_where_it_is_stored(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    [row] = telemetry.rows(tmp_path, quick=True)
    assert row.ours > 1000
    assert "2000 records" in row.notes


def test_bytes_are_counted_on_the_wire(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    whole, delta = moving.rows(tmp_path, quick=True)
    compressed = whole.peers["the model's compressed layer"]
    assert compressed < whole.ours <= compressed + 20_000
    assert whole.reached
    assert 1000 < delta.ours < compressed / 5
    assert delta.reached


def test_the_fine_tuned_model_differs_where_it_is_said() -> None:
    pytest.importorskip("onnx")
    import numpy as np
    from onnx import load_from_string

    first, other, tuned = (
        np.frombuffer(load_from_string(one).graph.initializer[0].raw_data, "float32")
        for one in moving.models(400_000)
    )
    assert (first != tuned).mean() == pytest.approx(0.05, abs=0.001)
    assert (first != other).mean() > 0.99
