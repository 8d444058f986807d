"""Bodies to rows of doubles and answers to JSON without numpy: for one matrix, as circuits take it.

The forms, the checks, and what errors say are the codec's; a test compares the two over whatever
clients may send.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from scoring.errors import InputError, UnknownInputError, UnsupportedModelError, WrongShapeError
from scoring.payload import columns as cols
from scoring.payload import lenient
from scoring.payload.answers import answer_keys
from scoring.payload.nesting import depth, too_deep
from scoring.payload.orientation import Oriented, Style, orient
from scoring.payload.places import ArrayPlace, CellPlace, MovedPlace, Place, key
from scoring.payload.walk import Leaf, Walk, double
from scoring.schema import ModelSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Rows = list[list[float]]


class Decoded(NamedTuple):
    """A decoded request.

    Attributes:
        rows: As many numbers in each as the model has features.
        style: How the answer is to look.
    """

    rows: Rows
    style: Style


class PlainCodec:
    """Decodes and encodes for a model with one input, rows of doubles.

    Args:
        schema: The model's.
        max_depth: How deep a body may be nested.

    Raises:
        UnsupportedModelError: It has other inputs than that.
    """

    def __init__(self, schema: ModelSchema, *, max_depth: int = 64) -> None:
        spec = schema.inputs[0]
        rank_fits = len(spec.shape) == len(("rows", "columns")) and spec.shape[0] is None
        width = spec.shape[-1] if rank_fits else None
        if len(schema.inputs) > 1 or spec.dtype not in _LEAVES or not width:
            raise UnsupportedModelError(
                "Only models with one input, rows of numbers, are served without numpy."
            )
        self.schema = schema
        self._spec = spec
        self._leaf = _LEAVES[spec.dtype]
        self._column = TensorSpec(spec.name, spec.dtype, (None,), spec.missing, spec.unused)
        self._max_depth = max_depth
        self._features = schema.features if len(schema.features) == width else ()

    def decode(self, body: bytes | bytearray) -> Decoded:
        """Checks a JSON body against the schema.

        Raises:
            InputError: What the sender has to change, with its place.
        """
        value = lenient.loads(body)
        try:
            found = orient(value)
            return Decoded(self._rows(found), found.style)
        except InputError:
            if depth(value, self._max_depth) > self._max_depth:
                raise too_deep(self._max_depth) from None
            raise

    def encode(self, outputs: Mapping[str, Sequence[Any]], style: Style) -> bytes:
        """The JSON body of an answer; NaN, which JSON does not have, as null.

        Args:
            outputs: By the names of the schema's outputs.
            style: Of the request.
        """
        if style == "outputs":
            return msgspec.json.encode({"outputs": outputs})
        answer = {name: outputs[output] for name, output in answer_keys(self.schema)}
        return msgspec.json.encode(answer)

    def _rows(self, found: Oriented) -> Rows:
        if found.form == "named":
            return self._named(found)
        if found.form == "records":
            return self._records(found)
        if found.columns is None:
            return self._matrix(found.value, ArrayPlace(found.path, self._features))
        given = found.columns
        order = cols.permutation(given, self._features or given, found.columns_path)
        rows = cols.reorder(found.value, order, found.path)
        cells = [f"[{number}]" for number in order]
        return self._matrix(rows, MovedPlace(found.path, cells, self._features or given))

    def _records(self, found: Oriented) -> Rows:
        own = [self._spec.name]
        if all(isinstance(record, dict) and list(record) == own for record in found.value):
            rows = cols.from_records(found.value, own, found.path)
            return self._matrix([row[0] for row in rows], CellPlace(found.path, key(own[0])))
        if not self._features:
            raise UnknownInputError(
                "The model does not know the names of its columns.",
                hint='Send lists of values: {"data": [[…], …]}.',
                where=found.path,
            )
        rows = cols.from_records(found.value, self._features, found.path)
        return self._matrix(rows, MovedPlace(found.path, [key(name) for name in self._features]))

    def _named(self, found: Oriented) -> Rows:
        given, own = list(found.value), [self._spec.name]
        if given != own and not set(given).isdisjoint(self._features):
            cols.require_names(given, self._features, found.path)
            return self._columns(found)
        cols.require_names(given, own, found.path, "input")
        return self._matrix(found.value[own[0]], ArrayPlace(found.path + key(own[0])))

    def _columns(self, found: Oriented) -> Rows:
        columns = []
        for name in self._features:
            walk = Walk(self._column, ArrayPlace(found.path + key(name)), self._leaf)
            walk.down(cols.flat(found.value[name]), 0, ())
            columns.append(walk.flat)
        first = self._features[0]
        for name, column in zip(self._features, columns, strict=True):
            if len(column) != len(columns[0]):
                raise WrongShapeError(
                    f"Column {name!r} has {len(column)} rows and {first!r} {len(columns[0])}.",
                    hint="Send as many rows for every column.",
                    where=found.path + key(name),
                )
        return [list(row) for row in zip(*columns, strict=True)]

    def _matrix(self, value: Any, place: Place) -> Rows:
        walk = Walk(self._spec, place, self._leaf)
        walk.down(value, 0, ())
        width = walk.sizes[1] or 0
        flat = walk.flat
        return [flat[start : start + width] for start in range(0, len(flat), width)]


def _single(found: float) -> bool:
    """Whether a number has a float32."""
    try:
        struct.pack("<f", found)
    except OverflowError:
        return False
    return True


_LEAVES: dict[str, Leaf] = {"float64": double, "float32": partial(double, fits=_single)}
