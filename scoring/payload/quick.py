"""The shortest way from the most frequent body to the array of a model's only input.

`{"data": rows}` with rows of fixed size and an input of floats: what is not that, or in doubt, is
left to the codec's long way. Each call that is spared here counts: in a server that answers tens of
thousands of requests a second, every function runs with cold caches.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from math import inf
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from scoring.runtimes.base import NUMPY_DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scoring.schema import ModelSchema

Inputs = dict[str, "NDArray[Any]"]
Quick = Callable[[bytes | bytearray], Inputs | None]

# From here on a parser with vector instructions pays for being set up.
_LARGE_BYTES = 8192


def quick_decoder(schema: ModelSchema) -> Quick:
    """A function that gives the inputs of such a body, and None for every other one."""
    if schema.layout != "tensors" or len(schema.inputs) != 1:
        return _never
    spec = schema.inputs[0]
    row = spec.shape[1:]
    dtype = NUMPY_DTYPES[spec.dtype]
    if dtype.kind != "f" or spec.shape[:1] != (None,) or not row or None in row:
        return _never
    name, rank = spec.name, len(spec.shape)
    parse = _parser(rank, dtype)
    large = _large_decoder(name, row, dtype) if rank == len(("rows", "columns")) else _never
    make, broken = np.array, (msgspec.MsgspecError, ValueError)

    def quick(body: bytes | bytearray) -> Inputs | None:
        if len(body) > _LARGE_BYTES and (inputs := large(body)) is not None:
            return inputs
        try:
            array = make(parse(body).data, dtype)
        except broken:
            return None
        # An empty list has no second dimension, and ragged rows are refused by numpy.
        return {name: array} if array.shape[1:] == row else None

    return quick


def _parser(rank: int, dtype: np.dtype[Any]) -> Callable[[bytes | bytearray], Any]:
    """Parses such a body; numbers beyond the element type are refused while they are read."""
    largest = float(np.finfo(dtype).max)
    kind: Any = Annotated[float, msgspec.Meta(ge=-largest, le=largest)]
    for _ in range(rank):
        kind = list[kind]
    body = msgspec.defstruct("Body", [("data", kind)], forbid_unknown_fields=True, gc=False)
    return msgspec.json.Decoder(body).decode


def _large_decoder(name: str, row: tuple[int | None, ...], dtype: np.dtype[Any]) -> Quick:
    """Like `quick`, by simdjson: it hands over the numbers as one buffer of doubles."""
    if find_spec("simdjson") is None:  # there is none for every version of Python
        return _never
    largest, smallest = np.maximum.reduce, np.minimum.reduce

    def large(body: bytes | bytearray) -> Inputs | None:
        import simdjson  # noqa: PLC0415 - most bodies are small

        try:
            document: Any = simdjson.Parser().parse(body)
            if not isinstance(document, simdjson.Object) or list(document) != ["data"]:
                return None
            rows: Any = document["data"]
            if [len(entry) for entry in rows] != [row[0]] * len(rows):
                return None
            if not has_lists(body, len(rows) + 1):  # a list in a row would be flattened
                return None
            array = np.frombuffer(rows.as_buffer(of_type="d"), np.float64)
        except (ValueError, TypeError, RuntimeError):
            return None
        if array.size != len(rows) * (row[0] or 0) or not array.size:
            return None
        with np.errstate(over="ignore"):
            inputs = array.astype(dtype)
        # Numbers beyond the element type; JSON has none that are infinite themselves. Not by a
        # product: BLAS would wake its threads for it, which takes longer than all the rest.
        if not (largest(inputs) < inf and smallest(inputs) > -inf):
            return None
        return {name: inputs.reshape(len(rows), -1)}

    return large


def has_lists(body: bytes | bytearray, count: int) -> bool:
    """Whether so many lists begin in a body, and no more; to find is far quicker than to count."""
    place = -1
    for _ in range(count):
        place = body.find(b"[", place + 1)
        if place < 0:
            return False
    return body.find(b"[", place + 1) < 0


def _never(_body: bytes | bytearray) -> Inputs | None:
    return None
