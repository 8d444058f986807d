"""Inference of 1,000 rows and of one, and what compiling takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantum.bench import Bench, beside, circuit, rate, states
from benchmarks.results import Row
from scoring.quantum.compile.compiler import CompiledCircuit, compile_circuit
from scoring.runtimes.ort import onnxruntime

SAMPLES = 1000
TARGETS = {4: 4000.0, 8: 170.0, 10: 12.0, 12: 2.0}
COMPILE_TARGETS = {10: 1.0, 12: 5.0}
_FOR_PEER = {4: 400, 8: 200, 10: 100, 12: 50}
_ONE_ROW_US = 10.0
_OUTPUTS = ("predictions", "probabilities")


def inference(bench: Bench) -> list[Row]:
    """The served ONNX file in onnxruntime: labels and probabilities, float64.

    On one thread and on all cores, of which the faster counts: small models lose by threads.

    Lightning answers an expectation value for each of its prebuilt tapes; it is measured on fewer
    samples, as its time for each does not depend on their number.
    """
    return [_row(bench, qubits, multiple) for qubits, multiple in TARGETS.items()]


def one_row(_bench: Bench) -> list[Row]:
    """One row at a time, through the call that the server makes."""
    compiled = compile_circuit(circuit(4))
    run = runner(compiled, states(4, 1), threads=1)
    best = min(_seconds(run, 2000) for _ in range(10)) / 2000 * 1e6
    target = f"under {_ONE_ROW_US:g}"
    return [Row("inference, 4 qubits, one row", "us", best, target, best < _ONE_ROW_US)]


def compiling(_bench: Bench) -> list[Row]:
    """From the circuit to the bytes of the ONNX file, both forms timed where the size asks."""
    rows = []
    for qubits, most in COMPILE_TARGETS.items():
        asked = circuit(qubits)
        seconds = min(_seconds(lambda: compile_circuit(asked).onnx, 1) for _ in range(3))  # noqa: B023
        form = compile_circuit(asked).forms[0]
        title = f"compiling, {qubits} qubits, {len(asked.gates)} gates"
        rows.append(Row(title, "s", seconds, f"under {most:g}", seconds < most, notes=form))
    return rows


def _row(bench: Bench, qubits: int, multiple: float) -> Row:
    asked = circuit(qubits)
    all_states = states(qubits, SAMPLES)
    compiled = compile_circuit(asked)
    runs = [runner(compiled, all_states, threads) for threads in (1, 0)]
    in_numpy = rate(lambda: compiled.class_probabilities(all_states), SAMPLES)
    return beside(
        bench,
        "inference",
        lambda: max(rate(run, SAMPLES, 0.5) for run in runs),
        asked,
        all_states[: _FOR_PEER[qubits]],
        title=f"inference, {qubits} qubits, {SAMPLES} samples, {len(asked.gates)} gates",
        multiple=multiple,
        notes=f"{compiled.forms[0]}; the same in numpy, rows checked: {in_numpy:,.0f} samples/s",
    )


def runner(
    compiled: CompiledCircuit, rows: NDArray[np.float64], threads: int
) -> Callable[[], object]:
    """Asks onnxruntime, as `scoring.runtimes.onnx` does; 0 threads: all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        compiled.onnx, options, providers=["CPUExecutionProvider"]
    )
    native = vars(session)["_sess"]
    return lambda: native.run(_OUTPUTS, {"X": rows}, None)


def _seconds(work: Callable[[], object], times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - begun
