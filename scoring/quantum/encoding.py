"""Rows of features as amplitudes of quantum states: what `features.Encoding` means, in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoring.errors import MissingValueError, WrongShapeError, WrongTypeError
from scoring.quantum import wide_rows
from scoring.quantum.features import (
    LEAST_FIRST,
    LEAST_ROUNDING,
    PAIR,
    PRODUCT_TOLERANCE,
    Constant,
    Encoding,
    Power,
    Product,
    Round,
    Scale,
    Step,
    qubits_for,
)
from scoring.quantum.wide import LEAST_SUM

if TYPE_CHECKING:
    from scoring.quantum.circuit import Circuit


def encode(circuit: Circuit, rows: ArrayLike) -> NDArray[np.float64]:
    """The amplitudes of each row's state.

    Args:
        circuit: Its encoding is applied.
        rows: Raw features, of the shape (samples, features).

    Returns:
        Real amplitudes of norm 1, of the shape (samples, 2**qubits).

    Raises:
        WrongShapeError, WrongTypeError, MissingValueError: As `check_rows`.
    """
    checked = check_rows(rows, circuit.encoding.features)
    return amplitudes(_encoded(circuit.encoding, checked), circuit.qubits)


def _encoded(encoding: Encoding, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the steps make of rows, those that leave the range of floats but for a factor."""
    if not encoding.steps:
        return rows
    found = _stepped(encoding, rows)
    with np.errstate(over="ignore", invalid="ignore"):
        totals = np.abs(found).sum(axis=1)
    lost = ~((totals >= LEAST_SUM) & (totals < np.inf))
    if lost.any():
        found[lost] = wide_rows.encoded(encoding, rows[lost])
    return found


def check_rows(rows: ArrayLike, features: int) -> NDArray[np.float64]:
    """Rows as floats, or an error that says what is wrong with them.

    Raises:
        WrongTypeError: They are not real numbers.
        WrongShapeError: They are no table with `features` columns.
        MissingValueError: A value is NaN or infinite.
    """
    table = as_table(rows)
    if table.ndim != 2 or table.shape[1] != features:  # noqa: PLR2004
        raise WrongShapeError(
            f"The rows have the shape {table.shape}; the circuit takes (rows, {features}).",
            hint=f"Send {features} features in each row.",
        )
    check_finite(table)
    return table


def as_table(rows: ArrayLike) -> NDArray[np.float64]:
    """Rows as an array of floats; raises `WrongTypeError` where they are none."""
    hint = "Send lists of numbers, all of the same length."
    try:
        found: NDArray[Any] = np.asarray(rows)
        table = np.asarray(found, dtype=np.float64) if found.dtype.kind in "biufO" else None
    except (TypeError, ValueError) as error:
        raise WrongTypeError(
            f"The rows are no table of real numbers: {error}.", hint=hint
        ) from error
    if table is None:
        raise WrongTypeError(f"The rows are of type {found.dtype}, not real numbers.", hint=hint)
    return table


def check_finite(table: NDArray[np.float64]) -> None:
    """Raises `MissingValueError` at the first value that is NaN or infinite."""
    bad = ~np.isfinite(table)
    if not bad.any():
        return
    row, column = (int(index) for index in np.argwhere(bad)[0])
    raise MissingValueError(
        f"Feature {column} of row {row} is {table[row, column]}.",
        hint="Fill or leave out rows with missing or infinite values.",
        where=f"[{row}][{column}]",
    )


def apply_steps(encoding: Encoding, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the encoding's steps make of checked rows in floats: the shape (samples, width).

    Raises:
        MissingValueError: A step turned finite numbers into infinite ones.
    """
    found = _stepped(encoding, rows)
    if encoding.steps:
        check_finite(found)
    return found


def _stepped(encoding: Encoding, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    for step in encoding.steps:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            rows = _apply(step, rows)
    return rows


def _apply(step: Step, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    match step:
        case Scale():
            scaled: NDArray[np.float64] = (rows - np.asarray(step.offset)) * step.factor
            return scaled
        case Constant():
            extra = np.broadcast_to(np.asarray(step.values), (len(rows), len(step.values)))
            return np.concatenate([rows, extra], axis=1)
        case Product():
            return np.concatenate([rows, step.scale * rows.prod(axis=1, keepdims=True)], axis=1)
        case Power():
            return _power(rows, step.times)
        case Round():
            return rounded(rows, step.step)


def _power(rows: NDArray[np.float64], times: int) -> NDArray[np.float64]:
    if times == 1:
        return rows
    factor = padded(rows, qubits_for(rows.shape[1]))
    result = factor
    for _ in range(times - 1):
        result = (result[:, :, None] * factor[:, None, :]).reshape(len(rows), -1)
    return result


def rounded(rows: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Rows whose features are multiples of `step`, but for those that `features.Round` exempts."""
    if step <= LEAST_ROUNDING:
        return rows
    result = np.rint(rows / step) * step
    if rows.shape[1] == PAIR:
        a, b, c, d = rows.T
        exact = (np.abs(a * d - b * c) < PRODUCT_TOLERANCE) & (np.abs(a) > LEAST_FIRST)
        result[exact] = rows[exact]
    return result


def amplitudes(rows: NDArray[np.float64], qubits: int) -> NDArray[np.float64]:
    """Finite rows as states: filled with zeros to 2**qubits, of norm 1; zeros become |0…0⟩.

    Each row is first divided by its largest value, so that no square over- or underflows.
    """
    states = padded(rows, qubits)
    largest = np.abs(states).max(axis=1, keepdims=True, initial=0.0)
    zero = largest[:, 0] == 0
    largest[zero] = 1.0
    result: NDArray[np.float64] = states / largest
    result[zero, 0] = 1.0
    result /= np.sqrt(np.einsum("ij,ij->i", result, result))[:, None]
    return result


def padded(rows: NDArray[np.float64], qubits: int) -> NDArray[np.float64]:
    """Rows with zeros appended to the width 2**qubits."""
    missing = 2**qubits - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing))) if missing else rows
