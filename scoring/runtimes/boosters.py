"""What XGBoost and LightGBM boosters have in common: objectives decide what an answer means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scoring.errors import WrongTypeError
from scoring.runtimes.dependencies import require
from scoring.schema import DType, ModelSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from scoring.runtimes.base import Arrays

Task = Literal["binary", "binary-labels", "multiclass", "multiclass-labels", "values"]
"""What a booster's raw answer is: `binary` the probability of class 1, `binary-labels` a margin or
label that is positive for class 1, `multiclass` a row of probabilities, `multiclass-labels` labels,
`values` numbers."""

MATRIX = "X"
_PAIR = 2


def output_specs(task: Task, dtype: DType, shape: Sequence[int]) -> tuple[TensorSpec, ...]:
    """The outputs for a task, given the shape of the booster's raw answer."""
    rest: tuple[int | None, ...] = tuple(shape[1:])
    if task == "values":
        return (TensorSpec("predictions", dtype, (None, *rest)),)
    if task == "binary":
        probabilities = (None, *(rest or (_PAIR,)))
        return (
            TensorSpec("predictions", "int64", (None, *rest)),
            TensorSpec("probabilities", dtype, probabilities),
        )
    if task == "multiclass":
        return (
            TensorSpec("predictions", "int64", (None,)),
            TensorSpec("probabilities", dtype, (None, *rest)),
        )
    return (TensorSpec("predictions", "int64", (None, *rest)),)


def answer(task: Task, raw: NDArray[Any]) -> dict[str, Any]:
    """The outputs of `output_specs` from a booster's raw answer."""
    if task == "values":
        return {"predictions": raw}
    if task == "multiclass":
        return {"predictions": raw.argmax(axis=1).astype(np.int64), "probabilities": raw}
    if task == "multiclass-labels":
        return {"predictions": raw.astype(np.int64)}
    if task == "binary-labels":
        return {"predictions": (raw > 0).astype(np.int64)}
    both = raw if raw.ndim > 1 else np.stack([1 - raw, raw], axis=1)
    return {"predictions": (raw > 0.5).astype(np.int64), "probabilities": both}  # noqa: PLR2004


def input_specs(
    names: Sequence[str], count: int, dtype: DType, categories: Mapping[str, Sequence[Any]]
) -> tuple[TensorSpec, ...]:
    """One matrix; or one input for each column, where some are categories of strings."""
    if not categories:
        return (TensorSpec(MATRIX, dtype, (None, count)),)
    return tuple(
        TensorSpec(name, "string" if name in categories else dtype, (None, 1)) for name in names
    )


def frame(
    inputs: Arrays,
    schema: ModelSchema,
    categories: Mapping[str, Sequence[Any]],
    *,
    strict: bool = True,
) -> Any:
    """A DataFrame whose columns of strings are categoricals.

    Args:
        inputs: One array of shape (rows, 1) for each column.
        schema: Of layout `table`.
        categories: Column name to the strings that the model knows.
        strict: Refuse other strings; else they count as missing.

    Raises:
        WrongTypeError: A string is none of the categories that the model knows.
    """
    pandas = require("pandas", "A model with categories")
    columns: dict[str, Any] = {}
    for spec in schema.inputs:
        values: Any = inputs[spec.name][:, 0]
        known = categories.get(spec.name)
        if known is not None:
            if strict:
                _require_known(spec.name, values, known)
            values = [value if value in known else None for value in values.tolist()]
            values = pandas.Categorical(values, categories=list(known))
        columns[spec.name] = values
    return pandas.DataFrame(columns)


def _require_known(name: str, values: NDArray[Any], known: Sequence[Any]) -> None:
    unknown = sorted({value for value in values.tolist() if value is not None} - set(known))
    if unknown:
        listed = ", ".join(repr(value) for value in known[:10])
        raise WrongTypeError(
            f"{unknown[0]!r} is no category of {name!r}.",
            hint=f"The model knows: {listed}{' …' if len(known) > 10 else ''}.",  # noqa: PLR2004
            where=name,
        )
