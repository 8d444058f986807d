"""The classification extension: an output's top classes as text, `value:index` or with a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import WrongTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def top_classes(
    output: NDArray[Any], count: int, labels: Sequence[object], *, batched: bool, where: str
) -> NDArray[Any]:
    """The classes of the highest values, the highest first; of equal values the first.

    Args:
        output: Numbers, any number for each row.
        count: How many classes are wanted; there may be fewer.
        labels: The names of the classes; they are given where there are as many as values.
        batched: The first dimension is the batch, whose rows are looked at one by one.
        where: The output's name, for errors.

    Returns:
        Strings: (rows, classes), or (classes,) without a batch.

    Raises:
        WrongTypeError: The output holds no numbers.
    """
    if output.dtype.kind not in "fiub":
        raise WrongTypeError(
            f"outputs: class result not available for output '{where}', which holds no numbers.",
            hint="Leave out parameters.classification.",
            where="outputs",
        )
    rows = output.reshape(len(output), -1) if batched else output.reshape(1, -1)
    most = min(count, rows.shape[1])
    names = labels if len(labels) == rows.shape[1] else ()
    found = np.empty((len(rows), most), dtype=object)
    for number, row in enumerate(rows):
        found[number] = _top(row, most, names)
    return found if batched else found[0]


def _top(row: NDArray[Any], count: int, labels: Sequence[object]) -> list[str]:
    form = "%f" if row.dtype.kind == "f" else "%d"
    texts = []
    for index in _order(row)[:count].tolist():
        text = f"{form % row[index]}:{index}"
        texts.append(f"{text}:{labels[index]}" if labels else text)
    return texts


def _order(row: NDArray[Any]) -> NDArray[Any]:
    """The indices from the highest value to the lowest; NaN last."""
    if row.dtype.kind == "f":
        return np.argsort(-row, kind="stable")
    # Of whole numbers the lowest has no opposite: turned twice, equal ones keep their order.
    last = len(row) - 1
    return last - np.argsort(row[::-1], kind="stable")[::-1]
