"""What is made once for a model: how its requests are read and its answers written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from scoring.runtimes.base import NUMPY_DTYPES
from serve.server.v2.answers import AnswerWriter
from serve.server.v2.datatypes import BY_SCHEMA
from serve.server.v2.inputs import Inputs
from serve.server.v2.request import RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from scoring.schema import ModelSchema
    from serve.server.models.served import ServedModel

    Quick = Callable[[bytes | bytearray], dict[str, NDArray[Any]] | None]

_FEW = 64
_MATRIX = 2


class Endpoint:
    """One version of a model, as the protocol sees it.

    Args:
        model: The model.
        max_depth: How deep a body may be nested.

    Attributes:
        model: See above.
        inputs: Its inputs.
        answers: Writes answers, and knows the outputs.
        reader: Reads requests.
        quick: The inputs of the most frequent body: one tensor of floats in JSON, and nothing else
            asked; None for every other body.
    """

    def __init__(self, model: ServedModel, max_depth: int) -> None:
        schema = model.schema
        self.model = model
        self.inputs = Inputs(schema)
        self.answers = AnswerWriter(schema, model.name, model.version)
        outputs = {name: port.in_json for name, port in self.answers.ports.items()}
        self.reader = RequestReader(self.inputs, outputs, max_depth)
        self.quick = quick_reader(schema)


def quick_reader(schema: ModelSchema) -> Quick:
    """A function that gives the inputs of such a body, and None for every other one."""
    if not _is_matrix(schema):
        return _never
    spec = schema.inputs[0]
    dtype = NUMPY_DTYPES[spec.dtype]
    name, datatype, width = spec.name, BY_SCHEMA[spec.dtype], spec.shape[1]
    largest = float(np.finfo(dtype).max)
    make, loads, broken = np.array, orjson.loads, (ValueError, TypeError, LookupError)

    def quick(body: bytes | bytearray) -> dict[str, NDArray[Any]] | None:
        # Booleans would pass as numbers.
        if b"true" in body or b"false" in body:
            return None
        try:
            document = loads(body)
            if type(document) is not dict or len(document) != 1:
                return None
            (tensor,) = document["inputs"]
            if len(tensor) != 4 or tensor["name"] != name or tensor["datatype"] != datatype:  # noqa: PLR2004
                return None
            rows, columns = tensor["shape"]
            data = tensor["data"]
            if type(rows) is not int or type(columns) is not int or columns != width:
                return None
            array = make(data)
        except broken:
            return None
        kind = array.dtype.kind
        if kind not in "fiu" or array.shape not in {(rows * width,), (rows, width)} or rows < 1:
            return None
        if kind == "f" and not _is_within(array, data, largest):
            return None
        return {name: array.astype(dtype, copy=False).reshape(rows, width)}

    return quick


def _is_matrix(schema: ModelSchema) -> bool:
    """Whether the model takes any number of rows of as many floats."""
    if schema.layout != "tensors" or len(schema.inputs) != 1:
        return False
    spec = schema.inputs[0]
    batch, *row = spec.shape or (1,)
    return spec.dtype in {"float32", "float64"} and batch is None and len(row) == 1 and bool(row[0])


def _is_within(array: NDArray[Any], data: Any, largest: float) -> bool:
    """Whether no element is beyond a bound."""
    if array.ndim == 1 and array.size <= _FEW:
        return bool(max(data) <= largest and min(data) >= -largest)
    # The sum of squares is larger than that of the largest: false alarms only cost time.
    return bool(np.vdot(array, array) <= largest)


def _never(_body: bytes | bytearray) -> dict[str, NDArray[Any]] | None:
    return None
