"""What does not fit is refused with both sizes, before it is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scoring.errors import CircuitTooLargeError
from scoring.quantum import memory, simulate
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.compile.compiler import compile_circuit
from scoring.quantum.features import Encoding


def test_more_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 3 * 2**30)
    memory.check(3 * 2**30, "They")
    with pytest.raises(CircuitTooLargeError, match=r"They need 4\.0 GiB of memory; 3\.0 GiB are"):
        memory.check(4 * 2**30, "They")


@pytest.mark.parametrize(
    ("size", "text"), [(5, "5 B"), (2048, "2.0 KiB"), (2**44, "16.0 TiB"), (2**62, "4096.0 PiB")]
)
def test_sizes_are_readable(size: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 0)
    with pytest.raises(CircuitTooLargeError, match=f"need {text} of memory; 0 B are free"):
        memory.check(size, "They")


@pytest.mark.parametrize(("form", "qubits"), [("folded", 14), ("folded", 17), ("fused", 30)])
def test_what_no_onnx_file_could_hold_is_refused_before_it_is_made(form: Any, qubits: int) -> None:
    circuit = Circuit(qubits, (Gate(0, "X", 0, (qubits - 1,)),), (1.0,))
    with pytest.raises(CircuitTooLargeError, match="a file of ONNX takes less than 2 GiB") as told:
        assert compile_circuit(circuit, form=form).onnx
    assert "fused" in told.value.hint


def test_the_control_groups_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    alone = memory.available()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert memory.available() > 10**6
    (tmp_path / "memory.max").write_text("1000005\n")
    assert memory.available() == 10**6 < alone
    (tmp_path / "memory.current").write_text("2000000\n")
    assert memory.available() == 0


def test_without_meminfo_the_machines_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.available() > 2**20


def test_a_register_too_large_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    circuit = Circuit(30, (), (), encoding=Encoding(2))
    with pytest.raises(CircuitTooLargeError, match=r"The states of 30 qubits need 64\.0 GiB"):
        simulate.outcome_probabilities(circuit, [[1.0, 2.0]])
