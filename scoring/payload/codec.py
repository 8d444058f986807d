"""From the bytes of a request to a model's inputs, and from its outputs to the answer's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from scoring.errors import InputError, UnknownInputError, WrongShapeError
from scoring.payload import columns as cols
from scoring.payload.answers import answer_keys
from scoring.payload.arrays import Converter, require_same_batch
from scoring.payload.document import Document, parse
from scoring.payload.nesting import depth, too_deep
from scoring.payload.orientation import Oriented, Style, orient
from scoring.payload.places import ArrayPlace, CellPlace, MovedPlace, Place, key
from scoring.payload.quick import quick_decoder
from scoring.payload.unused import filled
from scoring.schema import ModelSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_MATRIX_RANK = 2
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(slots=True)
class Decoded:
    """A decoded request.

    Attributes:
        inputs: One array for each input of the schema, as `Predictor.predict` takes them.
        style: How the answer is to look: `predictions` or `outputs`.
    """

    inputs: dict[str, NDArray[Any]]
    style: Style


class Codec:
    """Decodes and encodes for one model; may be used on several threads at once.

    Args:
        schema: The model's.
        max_depth: How deep a body may be nested.

    Attributes:
        quick: The inputs of the most frequent body, whose answer's style is `predictions`; None
            for every other body, at which `decode` has to look.
    """

    def __init__(self, schema: ModelSchema, *, max_depth: int = 64) -> None:
        self.schema = schema
        self.quick = quick_decoder(schema)
        self._max_depth = max_depth
        self._converters = {spec.name: Converter(spec) for spec in schema.inputs}
        self._names = [spec.name for spec in schema.inputs]
        self._columns = {spec.name: _column_converter(spec) for spec in schema.inputs}
        self._matrix = self._converters[self._names[0]] if self._is_single() else None
        self._unused = [spec.name for spec in schema.inputs if spec.unused]
        self._keys = answer_keys(schema)

    def decode(self, body: bytes | bytearray) -> Decoded:
        """Checks a JSON body against the schema.

        Raises:
            InputError: What the sender has to change, with its place.
        """
        return self.decode_document(parse(body))

    def decode_document(self, document: Document) -> Decoded:
        """Checks a parsed body against the schema; raises as `decode` does.

        Raises:
            InputError: What the sender has to change, with its place.
        """
        try:
            return self._decode(document)
        except InputError:
            if depth(document.value, self._max_depth) > self._max_depth:
                raise too_deep(self._max_depth) from None
            raise

    def encode(self, outputs: Mapping[str, Any], style: Style) -> bytes:
        """The JSON body of an answer.

        Floats are written as short as their own precision allows; NaN and infinity, which JSON does
        not have, as null.

        Args:
            outputs: What `Predictor.predict` returned.
            style: Of the request.
        """
        answer: dict[str, Any]
        if style == "outputs":
            answer = {"outputs": outputs}
        else:
            answer = {name: outputs[output] for name, output in self._keys}
        return dumps(answer)

    def _is_single(self) -> bool:
        return self.schema.layout == "tensors" and len(self._names) == 1

    def _decode(self, document: Document) -> Decoded:
        found = orient(document.value)
        plain = document.plain
        if self.schema.layout == "table":
            arrays = self._table(found, plain)
        elif found.form == "named":
            arrays = self._named(found, plain)
        elif self._matrix is not None:
            arrays = {self._names[0]: self._single(found, self._matrix, plain)}
        else:
            arrays = self._several(found, plain)
        require_same_batch(arrays, self.schema.inputs)
        return Decoded(arrays, found.style)

    def _single(self, found: Oriented, converter: Converter, plain: bool) -> NDArray[Any]:
        """The only input, from rows or records."""
        features = self._features(converter.spec)
        if found.form == "records":
            return self._single_from_records(found, converter, features, plain)
        if found.columns is None:
            return converter.array(found.value, ArrayPlace(found.path, features), plain=plain)
        given = found.columns
        order = cols.permutation(given, features or given, found.columns_path)
        rows = cols.reorder(found.value, order, found.path)
        cells = [f"[{number}]" for number in order]
        place = MovedPlace(found.path, cells, features or given)
        return converter.array(rows, place, plain=plain)

    def _single_from_records(
        self, found: Oriented, converter: Converter, features: tuple[str, ...], plain: bool
    ) -> NDArray[Any]:
        if all(isinstance(record, dict) and list(record) == self._names for record in found.value):
            return self._several(found, plain)[self._names[0]]
        if not features:
            raise UnknownInputError(
                "The model does not know the names of its columns.",
                hint='Send lists of values: {"data": [[…], …]}.',
                where=found.path,
            )
        rows = cols.from_records(found.value, features, found.path)
        place = MovedPlace(found.path, [key(name) for name in features])
        return converter.array(rows, place, plain=plain)

    def _features(self, spec: TensorSpec) -> tuple[str, ...]:
        features = self.schema.features
        fits = len(spec.shape) == _MATRIX_RANK and spec.shape[1] in {None, len(features)}
        return features if fits else ()

    def _named(self, found: Oriented, plain: bool) -> dict[str, NDArray[Any]]:
        """Inputs by name; a single matrix may come as its named columns, too."""
        given = list(found.value)
        if self._matrix is not None and given != self._names:
            features = self._features(self._matrix.spec)
            if features and not set(given).isdisjoint(features):
                cols.require_names(given, features, found.path)
                values = {name: cols.flat(found.value[name]) for name in features}
                places = {name: ArrayPlace(found.path + key(name)) for name in features}
                spec = self._matrix.spec
                converters = dict.fromkeys(features, _column_converter(spec))
                arrays = _columns(values, places, converters, plain)
                return {spec.name: np.concatenate(list(arrays.values()), axis=1)}
        cols.require_names(given, self._names, found.path, "input")
        return {
            name: self._converters[name].array(
                found.value[name], ArrayPlace(found.path + key(name)), plain=plain
            )
            for name in self._names
        }

    def _several(self, found: Oriented, plain: bool) -> dict[str, NDArray[Any]]:
        """Inputs by name from one object for each row."""
        if found.form != "records":
            names = ", ".join(f'"{name}": […]' for name in self._names)
            raise WrongShapeError(
                f"The model has {len(self._names)} inputs; {found.path or 'the body'} is one.",
                hint=f'Send {{"inputs": {{{names}}}}}.',
                where=found.path,
            )
        rows = cols.from_records(found.value, self._names, found.path)
        return {
            name: self._converters[name].array(
                [row[number] for row in rows], CellPlace(found.path, key(name)), plain=plain
            )
            for number, name in enumerate(self._names)
        }

    def _table(self, found: Oriented, plain: bool) -> dict[str, NDArray[Any]]:
        """Columns of their own types, from rows, records or named columns."""
        found = filled(found, self._unused) if self._unused else found
        names, path = self._names, found.path
        places: Mapping[str, Place]
        if found.form == "named":
            cols.require_names(list(found.value), names, path)
            values = {name: cols.flat(found.value[name]) for name in names}
            places = {name: ArrayPlace(path + key(name)) for name in names}
            return _columns(values, places, self._columns, plain)
        if found.form == "records":
            rows = cols.from_records(found.value, names, path)
            places = {name: CellPlace(path, key(name)) for name in names}
        else:
            order = cols.permutation(found.columns or names, names, found.columns_path)
            rows = cols.reorder(found.value, order, path)
            places = {
                name: CellPlace(path, f"[{order[number]}]", name)
                for number, name in enumerate(names)
            }
        values = {name: [row[number] for row in rows] for number, name in enumerate(names)}
        return _columns(values, places, self._columns, plain)


def _column_converter(spec: TensorSpec) -> Converter:
    """For the elements of one column, without the dimension of 1 that models give it."""
    return Converter(TensorSpec(spec.name, spec.dtype, (None,), spec.missing, spec.unused))


def _columns(
    values: Mapping[str, Any],
    places: Mapping[str, Place],
    converters: Mapping[str, Converter],
    plain: bool,
) -> dict[str, NDArray[Any]]:
    """Columns of shape (rows, 1) from lists of values."""
    arrays = {
        name: converters[name].array(value, places[name], plain=plain).reshape(-1, 1)
        for name, value in values.items()
    }
    first, *others = arrays
    for name in others:
        if len(arrays[name]) != len(arrays[first]):
            raise WrongShapeError(
                f"Column {name!r} has {len(arrays[name])} rows and {first!r} {len(arrays[first])}.",
                hint="Send as many rows for every column.",
                where=places[name].at(()),
            )
    return arrays


def dumps(answer: dict[str, Any]) -> bytes:
    """An answer with arrays in it as JSON."""
    try:
        return orjson.dumps(answer, _plain, _OPTIONS)
    except TypeError:
        # Arrays of the other byte order and numpy's keys are not even handed to _plain.
        return orjson.dumps(_rebuilt(answer), _plain, _OPTIONS)


def _plain(value: Any) -> Any:
    """What orjson does not write by itself."""
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"an output holds {type(value).__name__}, which has no form in JSON")


def _rebuilt(value: Any) -> Any:
    """An output in types that orjson writes."""
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, list):
        return [_rebuilt(inner) for inner in value]
    if isinstance(value, dict):
        return {_key(name): _rebuilt(inner) for name, inner in value.items()}
    return value


def _key(name: Any) -> Any:
    return name.item() if isinstance(name, np.generic) else name


def _plain_array(value: NDArray[Any]) -> Any:
    """An array as orjson writes it: native numbers in one piece, anything else as a list."""
    if value.dtype.kind in "fiub" and value.ndim:
        return np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
    return value.tolist()
