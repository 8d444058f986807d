"""Compiles quantum circuits, and compares the result with the state vector on drawn rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring import __version__
from scoring.compilation import Compilation
from scoring.compilation.compile import Compiled, predictor_of
from scoring.compilation.quiet import ConversionError
from scoring.errors import CircuitTooLargeError, MissingDependencyError
from scoring.formats.base import LoadedModel
from scoring.quantum.compile.compiler import NEAR, compile_circuit, near_threshold
from scoring.quantum.describing import circuits_of
from scoring.quantum.features import Scale

ROWS = 1024
LIMIT = 1e-10
"""What rounding may amount to in long circuits; anything over it is a mistake."""
_AMPLITUDES = 1 << 22
_LEAST_ROWS = 8
_CONVERTER = f"fieldpost {__version__}"

Inputs = Mapping[str, NDArray[Any]]


def compile_model(
    loaded: LoadedModel, *, sample: Inputs | None = None, tolerance: float = LIMIT
) -> tuple[Compilation, Compiled | None]:
    """Compiles a circuit to ONNX, float64.

    Labels have to be equal but for rows so near the threshold that rounding decides; how many of
    those there were is told.

    Args:
        loaded: The circuit and its state vector's predictor.
        sample: Rows of the user's to compare on, beside drawn ones.
        tolerance: The largest difference of a probability; at most `LIMIT` is accepted.

    Returns:
        How it ended, and the compiled form where that serves.
    """
    tolerance = min(tolerance, LIMIT)
    try:
        compiled = compile_circuit(loaded.model)
        content = compiled.onnx
        form = Compiled(content, loaded.schema, "float64", _opset(), _CONVERTER)
        outcome = _compare(loaded, form, _rows(loaded, sample), tolerance, compiled.reason)
    except (MissingDependencyError, CircuitTooLargeError, ConversionError) as error:
        return Compilation(served=False, reason=str(error), tolerance=tolerance), None
    return outcome, form if outcome.served else None


def _opset() -> int:
    from scoring.quantum.onnx_graph import OPSET  # noqa: PLC0415 - late: it imports onnx

    return OPSET


def draw_rows(model: Any, rows: int, seed: int) -> NDArray[np.float64]:
    """Rows as a circuit may have been trained on: normal, undone where it begins with scaling."""
    circuit = circuits_of(model)[0]
    drawn = np.random.default_rng(seed).normal(size=(rows, circuit.encoding.features))
    first = circuit.encoding.steps[0] if circuit.encoding.steps else None
    if isinstance(first, Scale):
        factor = np.asarray(first.factor)
        drawn = drawn / np.where(factor == 0, 1.0, factor) + first.offset
    return np.asarray(drawn, dtype=np.float64)


def _rows(loaded: LoadedModel, sample: Inputs | None) -> NDArray[np.float64]:
    circuits = circuits_of(loaded.model)
    amplitudes = sum(circuit.size for circuit in circuits)
    count = int(np.clip(_AMPLITUDES // amplitudes, _LEAST_ROWS, ROWS))
    drawn = draw_rows(loaded.model, count, seed=0)
    zeros = np.zeros((1, drawn.shape[1]))
    given = [] if sample is None else [sample[loaded.schema.inputs[0].name]]
    return np.concatenate([*given, drawn, zeros])


def _compare(
    loaded: LoadedModel,
    form: Compiled,
    rows: NDArray[np.float64],
    tolerance: float,
    reason: str,
) -> Compilation:
    name = loaded.schema.inputs[0].name
    one = loaded.predictor.predict({name: rows})
    other = predictor_of(form).predict({name: rows})
    difference = float(np.max(np.abs(one["probabilities"] - other["probabilities"])))
    near = near_threshold(one["probabilities"], max(difference, NEAR["float64"]))
    wrong = int(np.count_nonzero((one["predictions"] != other["predictions"]) & ~near))
    served = difference <= tolerance and not wrong
    return Compilation(
        served=served,
        reason=f"{reason} {_agreement(len(rows), difference, wrong, tolerance)}"
        f"{_warning(int(near.sum()), served=served)}",
        dtype="float64",
        rows_compared=len(rows),
        label_mismatches=wrong,
        max_difference=difference,
        tolerance=tolerance,
        opset=form.opset,
        converter=form.converter,
    )


def _agreement(rows: int, difference: float, wrong: int, tolerance: float) -> str:
    if wrong:
        return f"It disagreed with the state vector in {wrong} of {rows} labels."
    if not difference <= tolerance:
        return f"It differed from the state vector by {difference:.3g}, over {tolerance:g}."
    return f"It agreed with the state vector on {rows} rows (largest difference {difference:.2g})."


def _warning(near: int, *, served: bool) -> str:
    if not near or not served:
        return ""
    one = near == 1
    return (
        f" {near} of them {'is' if one else 'are'} so near the threshold that rounding decides "
        f"{'its' if one else 'their'} class."
    )
