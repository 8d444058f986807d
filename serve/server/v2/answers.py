"""The body of an infer answer: JSON, and behind it the bytes of its binary tensors. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from scoring.errors import ScoringFailedError
from scoring.http import Response
from serve.server.status import JSON
from serve.server.v2.classification import top_classes
from serve.server.v2.datatypes import BINARY_ONLY, BY_NUMPY, BY_SCHEMA, BYTES
from serve.server.v2.tensors import to_raw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from scoring.schema import ModelSchema, TensorSpec
    from serve.server.v2.plan import InferRequest, Wanted

JSON_OBJECTS = {"content_type": "application/json"}
"""The parameters of an output whose strings are JSON objects."""

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_BINARY = ("content-type", "application/octet-stream")
_JSON_SIZE = "inference-header-content-length"


class OutputPort:
    """One output.

    Args:
        spec: What the model answers.
        classes: The model's labels.

    Attributes:
        name: Of the output.
        datatype: Of the protocol.
        shape: The sizes, -1 where they are free.
        parameters: Of the output in documents and answers.
        in_json: Whether JSON can carry it.
    """

    def __init__(self, spec: TensorSpec, classes: Sequence[object]) -> None:
        self.name = spec.name
        self.datatype = BY_SCHEMA[spec.dtype]
        self.shape = [-1 if size is None else size for size in spec.shape]
        self.parameters = JSON_OBJECTS if spec.dtype == "map" else {}
        self.in_json = self.datatype not in BINARY_ONLY
        self._classes = classes
        self._batched = self.shape[:1] == [-1]

    def array(self, value: Any, classes: int = 0) -> NDArray[Any]:
        """The output as an array that the protocol has a datatype for.

        Args:
            value: What the model gave: an array, or a list of dicts.
            classes: How many of its top classes are wanted in its place; 0 for the output itself.
        """
        if classes:
            numbers = self._numbers(value)
            return top_classes(
                numbers, classes, self._classes, batched=self._batched, where=self.name
            )
        if isinstance(value, np.ndarray):
            return value if value.dtype.isnative and value.dtype in BY_NUMPY else _rebuilt(value)
        found = np.empty(len(value), dtype=object)
        found[:] = [_json_object(row) for row in value]
        return found

    def _numbers(self, value: Any) -> NDArray[Any]:
        """A map's values in the order of the labels; an array as it is."""
        if isinstance(value, np.ndarray):
            return value
        return np.array([[row[label] for label in self._classes] for row in value])


def _rebuilt(value: NDArray[Any]) -> NDArray[Any]:
    """Other arrays of numbers in native order, and of text as objects."""
    if value.dtype.kind in "fiub":
        native = value.astype(value.dtype.newbyteorder("="))
        return native if native.dtype in BY_NUMPY else native.astype(np.float64)
    return value.astype(object)


def _json_object(row: Mapping[Any, Any]) -> str:
    return orjson.dumps(
        {_key(name): inner for name, inner in row.items()},
        option=_OPTIONS | orjson.OPT_NON_STR_KEYS,
    ).decode()


def _key(name: Any) -> Any:
    return name.item() if isinstance(name, np.generic) else name


class AnswerWriter:
    """Writes the infer answers of one model.

    Args:
        schema: The model's.
        name: Of the model.
        version: Of the model.

    Attributes:
        ports: The outputs by name, in the schema's order.
    """

    def __init__(self, schema: ModelSchema, name: str, version: str) -> None:
        self.ports = {spec.name: OutputPort(spec, schema.classes) for spec in schema.outputs}
        self._name = name
        self._version = version
        self._plain = [
            (spec.name, BY_SCHEMA[spec.dtype]) for spec in schema.outputs if spec.dtype != "map"
        ]
        numeric = all(spec.dtype not in {"map", "string", "float16"} for spec in schema.outputs)
        self._is_plain = numeric and bool(self._plain)

    def plain(self, outputs: Mapping[str, Any], request_id: str = "") -> bytes | None:
        """All outputs as JSON, for a request that asks for nothing else.

        Args:
            outputs: What the model gave.
            request_id: To be echoed; empty for none.

        Returns:
            The answer; None where an output needs the long way (`write`).
        """
        if not self._is_plain:
            return None
        tensors = []
        for name, datatype in self._plain:
            array = outputs[name]
            if BY_NUMPY.get(array.dtype) != datatype:
                return None
            shape = array.shape
            data = array if len(shape) == 1 else array.ravel()
            tensors.append({"name": name, "datatype": datatype, "shape": shape, "data": data})
        document: dict[str, Any] = {
            "model_name": self._name,
            "model_version": self._version,
            "outputs": tensors,
        }
        if request_id:
            document["id"] = request_id
        answer = orjson.dumps(document, option=_OPTIONS)
        # NaN and infinity; a name may hold the word, too, which only costs time.
        return None if b"null" in answer else answer

    def write(self, request: InferRequest, outputs: Mapping[str, Any]) -> Response:
        """The answer to a request.

        Args:
            request: What was asked.
            outputs: What the model gave.

        Raises:
            InputError: An output cannot be given in the form that was asked for.
        """
        tensors, blobs = [], []
        for wanted in request.wanted:
            tensor, blob = self._tensor(wanted, outputs[wanted.name])
            tensors.append(tensor)
            if blob is not None:
                blobs.append(blob)
        document: dict[str, Any] = {
            "model_name": self._name,
            "model_version": self._version,
            "outputs": tensors,
        }
        if request.id:
            document["id"] = request.id
        text = _dump(document)
        if not any(wanted.binary for wanted in request.wanted):
            return Response(200, text, [JSON])
        return Response(200, b"".join([text, *blobs]), [_BINARY, (_JSON_SIZE, str(len(text)))])

    def _tensor(self, wanted: Wanted, value: Any) -> tuple[dict[str, Any], bytes | None]:
        port = self.ports[wanted.name]
        array = port.array(value, wanted.classes)
        tensor: dict[str, Any] = {
            "name": wanted.name,
            "datatype": BY_NUMPY.get(array.dtype, BYTES),
            "shape": array.shape,
        }
        if wanted.binary:
            blob = to_raw(array)
            tensor["parameters"] = {**port.parameters, "binary_data_size": len(blob)}
            return tensor, blob
        if port.parameters:
            tensor["parameters"] = port.parameters
        tensor["data"] = json_data(array, wanted.name)
        return tensor, None


def json_data(array: NDArray[Any], name: str) -> Any:
    """An array's elements, row by row, as orjson writes them.

    NaN and the infinities, which JSON does not have, are the strings `NaN`, `Infinity` and
    `-Infinity`: null would be zero to some clients, and the bare words no JSON to most.

    Raises:
        ScoringFailedError: The model answers half precision where its schema does not say so.
    """
    if array.dtype == np.float16:
        raise ScoringFailedError(
            f"The output {name!r} is FP16, which JSON does not carry.",
            hint='Send "parameters": {"binary_data_output": true}.',
        )
    flat = np.ascontiguousarray(array).ravel()
    if array.dtype.kind == "O":
        return [_text(value) for value in flat.tolist()]
    if array.dtype.kind == "f" and not np.isfinite(flat).all():
        # orjson writes a float32 as short as it is only from an array.
        finite = np.isfinite(flat)
        written = orjson.loads(orjson.dumps(np.where(finite, flat, 0), option=_OPTIONS))
        pairs = zip(written, finite.tolist(), flat.tolist(), strict=True)
        return [short if ok else _special(value) for short, ok, value in pairs]
    return flat


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else "" if value is None else str(value)


def _dump(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document, option=_OPTIONS)
    except TypeError:  # half of a surrogate pair in a string of the model's
        import json  # noqa: PLC0415 - hardly ever

        def listed(value: NDArray[Any]) -> Any:
            return value.tolist()

        text = json.dumps(document, default=listed, ensure_ascii=False)
        return text.encode("utf-8", "replace")
