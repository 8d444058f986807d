"""The way in: a circuit in the form that serves, with its reasons and its warnings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoring.quantum import simulate
from scoring.quantum.circuit import Circuit, Model, OneVersusRest
from scoring.quantum.compile.choose import Part, Request, choose, describe
from scoring.quantum.compile.folding import Folded
from scoring.quantum.encoding import encode

FloatName = Literal["float64", "float32"]

NEAR = {"float64": 1e-12, "float32": 1e-5}
"""How far probabilities of two forms may be from each other."""
_TIMED_ROWS = 128
_ROUNDS = 3
_LEAST_S = 1e-9


@dataclass(frozen=True, eq=False)
class CompiledCircuit:
    """A model that has been compiled.

    Attributes:
        model: What was compiled.
        parts: Each of its circuits in the form that serves.
        dtype: Of the ONNX form.
    """

    model: Model
    parts: tuple[Part, ...]
    dtype: FloatName

    @property
    def forms(self) -> tuple[str, ...]:
        """The form of each circuit: `folded` or `fused`."""
        return tuple(part.form for part in self.parts)

    @property
    def reason(self) -> str:
        """What was chosen, and why."""
        return describe(self.parts)

    @cached_property
    def onnx(self) -> bytes:
        """The ONNX file."""
        from scoring.quantum.onnx_export import to_onnx  # noqa: PLC0415 - late: it imports onnx

        return to_onnx(self.model, self.parts, self.dtype)

    def class_probabilities(self, rows: ArrayLike) -> NDArray[np.float64]:
        """What `simulate.class_probabilities` answers, by the compiled matrices, in numpy.

        Raises:
            InputError: The rows are not what the circuit takes.
        """
        found = [_class_probabilities(part, rows) for part in self.parts]
        if isinstance(self.model, OneVersusRest):
            return simulate.normalised(np.stack([each[:, 1] for each in found], axis=1))
        return found[0]


def compile_circuit(
    model: Model, *, form: Request = "auto", dtype: FloatName = "float64"
) -> CompiledCircuit:
    """Compiles a circuit, or the circuits of one against rest.

    Args:
        model: What is compiled.
        form: `folded`, `fused`, or `auto`: what answers most rows per second.
        dtype: Of the ONNX form: `float64`, or `float32` where 1e-5 is near enough.

    Raises:
        CircuitTooLargeError: The form that was asked for does not fit into memory.
        MissingDependencyError: `onnx` is not installed.
    """
    circuits = model.circuits if isinstance(model, OneVersusRest) else (model,)

    def rate(part: Part) -> float:
        return _rate(part, dtype)

    parts = tuple(choose(circuit, form, rate) for circuit in circuits)
    return CompiledCircuit(model, parts, dtype)


def near_threshold(probabilities: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Which rows have their two largest probabilities so near that forms may differ in the label.

    Args:
        probabilities: The shape (rows, classes).
        tolerance: How far a probability may be off.
    """
    ordered = np.sort(probabilities, axis=1)
    near: NDArray[np.bool_] = ordered[:, -1] - ordered[:, -2] <= 2 * tolerance
    return near


def _class_probabilities(part: Part, rows: ArrayLike) -> NDArray[np.float64]:
    circuit = part.circuit
    states = encode(circuit, rows)
    if isinstance(part.compiled, Folded):
        states = states[:, : circuit.encoding.width()]
    sums = part.compiled.sums(states)
    if circuit.is_binary:
        sums = np.stack([1 - sums[:, 0], sums[:, 0]], axis=1)
    return simulate.decide(circuit, sums)


def _rate(part: Part, dtype: FloatName) -> float:
    """Rows in a second of a core, through onnxruntime on one thread: as the server asks it.

    The thread's own time counts, so that what else the machine does decides nothing.
    """
    circuit: Circuit = part.circuit
    rows = np.random.default_rng(0).normal(size=(_TIMED_ROWS, circuit.encoding.features))
    run = _runner(part, dtype, rows.astype(dtype))
    run()
    best = min(_seconds(run) for _ in range(_ROUNDS))
    return _TIMED_ROWS / best


def _runner(part: Part, dtype: FloatName, rows: NDArray[Any]) -> Any:
    from scoring.quantum.onnx_export import INPUT, PROBABILITIES, to_onnx  # noqa: PLC0415 - late
    from scoring.runtimes.ort import onnxruntime  # noqa: PLC0415 - late: only between two forms

    content = to_onnx(part.circuit, [part], dtype)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    return lambda: session.run([PROBABILITIES], {INPUT: rows})


def _seconds(run: Any) -> float:
    start = time.thread_time()
    run()
    return max(time.thread_time() - start, _LEAST_S)
