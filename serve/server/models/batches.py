"""Batches: several requests answered by one run of the model, each with its own part. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scoring.runtimes.base import Arrays
    from scoring.schema import ModelSchema
    from serve.server.models.call import Call

Predict = Callable[["Arrays"], dict[str, Any]]
Outcome = tuple["Call", Any, BaseException | None]
"""A call, what its `encode` gave (or None), and what went wrong (or None)."""


class UnevenError(Exception):
    """An output does not have one entry for each row: the model's rows are not independent."""


def has_free_batch(schema: ModelSchema) -> bool:
    """Whether every input and output has a free first dimension, the batch."""
    specs = (*schema.inputs, *schema.outputs)
    return bool(schema.inputs) and all(s.shape and s.shape[0] is None for s in specs)


def has_fixed_rows(schema: ModelSchema) -> bool:
    """Whether all rows have one shape, so that any two requests can share a run."""
    return all(None not in spec.shape[1:] for spec in schema.inputs)


def groups(calls: Sequence[Call], limit: int, *, fixed: bool) -> list[list[Call]]:
    """Splits calls into runs of at most `limit` rows and of one shape of rows.

    A call that is over the limit by itself stands alone.

    Args:
        calls: Decoded, in the order in which they came.
        limit: Of the rows of one run.
        fixed: All rows are known to have one shape.
    """
    if fixed and len(calls) > 1 and sum(call.rows for call in calls) <= limit:
        return [list(calls)]
    found: list[list[Call]] = []
    open_groups: dict[Any, tuple[list[Call], int]] = {}
    for call in calls:
        shape = None if fixed else _row_shape(call.inputs)
        group, rows = open_groups.get(shape, (None, 0))
        if group is None or rows + call.rows > limit:
            group, rows = [], 0
            found.append(group)
        group.append(call)
        open_groups[shape] = (group, rows + call.rows)
    return found


def _row_shape(inputs: Arrays) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape[1:] for array in inputs.values())


def rows_of(inputs: Arrays) -> int:
    """The rows of a request; inputs without dimensions count for one."""
    for array in inputs.values():
        return len(array) if array.ndim else 1
    return 1


def merged(calls: Sequence[Call]) -> Arrays:
    """The inputs of several calls as those of one, where compiled code may read them.

    Compiled code may read several elements at once, and relies on their alignment. What was cut out
    of a request's body lies at any address.
    """
    if len(calls) == 1:
        inputs = calls[0].inputs
        if all(array.flags.aligned for array in inputs.values()):
            return inputs
        return {name: np.require(array, requirements="A") for name, array in inputs.items()}
    names = calls[0].inputs
    return {name: np.concatenate([call.inputs[name] for call in calls]) for name in names}


def require_even(outputs: Mapping[str, Any], rows: int) -> None:
    """Checks that every output can be taken apart by rows.

    Raises:
        UnevenError: One cannot.
    """
    for name, value in outputs.items():
        if getattr(value, "ndim", 1) == 0 or len(value) != rows:
            raise UnevenError(name)


def part(outputs: Mapping[str, Any], begin: int, end: int) -> dict[str, Any]:
    """The outputs of the rows from `begin` to before `end`."""
    return {name: value[begin:end] for name, value in outputs.items()}


def predict_in_pieces(predict: Predict, inputs: Arrays, rows: int, limit: int) -> dict[str, Any]:
    """Answers one large request by runs of at most `limit` rows.

    Raises:
        UnevenError: The rows are not independent.
    """
    pieces = []
    for begin in range(0, rows, limit):
        end = min(begin + limit, rows)
        outputs = predict({name: array[begin:end] for name, array in inputs.items()})
        require_even(outputs, end - begin)
        pieces.append(outputs)
    return {name: _joined([piece[name] for piece in pieces]) for name in pieces[0]}


def _joined(values: list[Any]) -> Any:
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return [entry for value in values for entry in value]


def rows_are_independent(predict: Predict, inputs: Arrays, rows: int) -> bool:
    """Whether a model answers a row alike alone and beside others, as far as one input shows.

    Operators across rows (a softmax over the batch, say) have nothing in the graph's signature that
    tells of them.
    """
    alone = predict(inputs)
    doubled = predict({name: np.concatenate([array, array]) for name, array in inputs.items()})
    try:
        require_even(alone, rows)
        require_even(doubled, 2 * rows)
    except UnevenError:
        return False
    return all(
        _alike(alone[name], half)
        for half_at in (0, rows)
        for name, half in part(doubled, half_at, half_at + rows).items()
    )


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray):
        return all(
            a.keys() == b.keys() and np.allclose(list(a.values()), list(b.values()), rtol=1e-3)
            for a, b in zip(one, other, strict=True)
        )
    if one.dtype.kind in "fc":
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(one, other))
