"""Which failures of a model are the sender's to mend, and which row of a request is at fault."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from scoring.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scoring.runtimes.base import Arrays
    from scoring.schema import ModelSchema

_UNKNOWN_CATEGORY = re.compile(r"unknown categor(?:y|ies)", re.IGNORECASE)
_VALUES = re.compile(
    # onnxruntime: what an operator calls its caller's fault, an index into a table, sizes that do
    # not meet (of pictures with the channels in the wrong place, say), text that is no number.
    r"INVALID_ARGUMENT : Non-zero status|out of data bounds|dimension mismatch|cannot be reshaped"
    r"|broadcast an axis|dimensions must match|not equal to kernel channels"
    r"|should not be greater than|\bsto[dfil]l?\b"
    # PyTorch: the same.
    r"|index out of range|out of bounds|shapes cannot be multiplied|must match the size"
    r"|to have \d+ channels|greater than actual input size",
    re.IGNORECASE,
)
_HINT = "Send values such as the model was trained on."
_MOST_SHOWN = 8
_LONGEST = 40


def is_refusal(text: str) -> bool:
    """Whether a library's reason says that the values cannot be answered, not that it broke."""
    return bool(_UNKNOWN_CATEGORY.search(text) or _VALUES.search(text))


def refusal(
    text: str, inputs: Arrays, schema: ModelSchema, answer: Callable[[Arrays], Any]
) -> InputError:
    """The error for values that a model cannot answer.

    Args:
        text: The library's reason.
        inputs: The request's.
        schema: The model's.
        answer: Asks the model again, for parts of the request: it raises as it did.
    """
    row = first_refused(inputs, schema, answer)
    where = "" if row is None else f"row {row}"
    if not _UNKNOWN_CATEGORY.search(text):
        place = f" (first in {where})" if where else ""
        return InputError(f"The model refuses the input{place}: {text}", hint=_HINT, where=where)
    held = f"Row {row}" if where else "The input"
    shown = "" if row is None else _cells(inputs, schema, row)
    # scikit-learn names the value; onnxruntime names only its operator.
    reason = f": {text}" if "[" in text else ""
    return InputError(
        f"{held} holds a category that the model was not trained on{shown}{reason}.",
        hint="Send a category that it knows, or train it with handle_unknown='ignore'.",
        where=where,
    )


def first_refused(
    inputs: Arrays, schema: ModelSchema, answer: Callable[[Arrays], Any]
) -> int | None:
    """The first row that is refused by itself, found by halving; None where rows are not free."""
    if any(spec.shape[:1] != (None,) for spec in schema.inputs):
        return None
    start, end = 0, len(inputs[schema.inputs[0].name])
    while end - start > 1:
        middle = (start + end) // 2
        if _answers(answer, {name: array[start:middle] for name, array in inputs.items()}):
            start = middle
        else:
            end = middle
    return start


def _answers(answer: Callable[[Arrays], Any], inputs: Arrays) -> bool:
    try:
        answer(inputs)
    except Exception:  # noqa: BLE001 - a model may fail in any way
        return False
    return True


def _cells(inputs: Arrays, schema: ModelSchema, row: int) -> str:
    """A row of a table; of a wide one its strings, which its categories most often are."""
    specs = [spec for spec in schema.inputs if not spec.unused]
    if len(specs) > _MOST_SHOWN:
        specs = [spec for spec in specs if spec.dtype == "string"]
    names = [spec.name for spec in specs]
    if schema.layout != "table" or not names or len(names) > _MOST_SHOWN:
        return ""
    cells = [f"{name}={repr(inputs[name][row].tolist()[0])[:_LONGEST]}" for name in names]
    return f" ({', '.join(cells)})"
