"""The shortest way from the most frequent infer request to the array of a model's only input.

One tensor of floats in JSON, all outputs wanted in JSON: what is not that, or in doubt, is left to
`RequestReader`. See `scoring.payload.quick`, which does the same for `/score`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np

from scoring.payload.quick import has_lists
from scoring.runtimes.base import NUMPY_DTYPES
from serve.server.v2.datatypes import BY_SCHEMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scoring.schema import ModelSchema

Found = tuple[dict[str, "NDArray[Any]"], str]
"""The inputs, and the request's id (empty for none)."""
Quick = Callable[[bytes | bytearray], Found | None]

# From here on a parser with vector instructions pays for being set up.
_LARGE_BYTES = 8192
_KEYS = ["data", "datatype", "name", "shape"]


def quick_reader(schema: ModelSchema) -> Quick:
    """A function that gives what such a body holds, and None for every other one."""
    if not _is_matrix(schema):
        return _never
    spec = schema.inputs[0]
    name, dtype, width = spec.name, NUMPY_DTYPES[spec.dtype], spec.shape[1] or 0
    parse = _parser(name, dtype)
    large = _large_reader(name, dtype, width)
    make, broken = np.array, (msgspec.MsgspecError, ValueError)

    def quick(body: bytes | bytearray) -> Found | None:
        if len(body) > _LARGE_BYTES and (found := large(body)) is not None:
            return found
        try:
            document = parse(body)
        except broken:
            return None
        (tensor,) = document.inputs
        rows, columns = tensor.shape
        data = tensor.data
        if columns != width or len(data) != rows * width:
            return None
        return {name: make(data, dtype).reshape(rows, width)}, document.id

    return quick


def _is_matrix(schema: ModelSchema) -> bool:
    """Whether the model takes any number of rows of as many floats."""
    if schema.layout != "tensors" or len(schema.inputs) != 1:
        return False
    spec = schema.inputs[0]
    batch, *row = spec.shape or (1,)
    return spec.dtype in {"float32", "float64"} and batch is None and len(row) == 1 and bool(row[0])


def _parser(name: str, dtype: np.dtype[Any]) -> Callable[[bytes | bytearray], Any]:
    """Parses such a body; numbers beyond the element type are refused while they are read."""
    largest = float(np.finfo(dtype).max)
    number = Annotated[float, msgspec.Meta(ge=-largest, le=largest)]
    size = Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    fields: list[Any] = [
        ("name", Literal[name]),
        ("shape", tuple[size, size]),
        ("datatype", Literal[BY_SCHEMA[dtype.name]]),
        ("data", list[number]),
    ]
    tensor = msgspec.defstruct("Tensor", fields, forbid_unknown_fields=True, gc=False)
    body = msgspec.defstruct(
        "Body",
        [("inputs", tuple[tensor]), ("id", str, "")],  # type: ignore[valid-type]
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(body).decode


def _large_reader(name: str, dtype: np.dtype[Any], width: int) -> Quick:
    """Likewise, by simdjson: it hands over the numbers as one buffer of doubles."""
    if find_spec("simdjson") is None:  # there is none for every version of Python
        return _never
    datatype, largest = BY_SCHEMA[dtype.name], float(np.finfo(dtype).max)

    def large(body: bytes | bytearray) -> Found | None:
        import simdjson  # noqa: PLC0415 - most bodies are small

        try:
            document: Any = simdjson.Parser().parse(body)
            tensor, request_id = _only_tensor(document)
            if tensor["name"] != name or tensor["datatype"] != datatype:
                return None
            rows, columns = _flat_shape(tensor, body)
            if columns != width:
                return None
            array = np.frombuffer(tensor["data"].as_buffer(of_type="d"), np.float64)
        except (ValueError, TypeError, RuntimeError, LookupError, AttributeError):
            return None
        if not array.size or array.size != rows * width or not np.abs(array).max() <= largest:
            return None
        return {name: array.astype(dtype).reshape(rows, width)}, request_id

    return large


def _only_tensor(document: Any) -> tuple[Any, str]:
    """The only input of a request that has nothing beside it but an id."""
    request_id = ""
    keys = sorted(document)
    if keys == ["id", "inputs"]:
        request_id = document["id"]
        if not isinstance(request_id, str):
            raise TypeError
    elif keys != ["inputs"]:
        raise LookupError
    (tensor,) = document["inputs"]
    if sorted(tensor) != _KEYS:
        raise LookupError
    return tensor, request_id


def _flat_shape(tensor: Any, body: bytes | bytearray) -> tuple[int, int]:
    """The rows and columns of a tensor whose data is one list, or a list for each row.

    The buffer does not tell how lists are nested, so they are counted.
    """
    rows, columns = list(tensor["shape"])
    if type(rows) is not int or type(columns) is not int:
        raise TypeError
    data = tensor["data"]
    lists = 3
    if len(data) == rows and [len(row) for row in data] == [columns] * rows:
        lists += rows
    if not has_lists(body, lists):
        raise LookupError
    return rows, columns


def _never(_body: bytes | bytearray) -> Found | None:
    return None
