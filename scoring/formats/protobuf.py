"""ONNX by the structure of its protobuf, without the `onnx` package.

Only the lengths of the top-level fields are read: a file of gigabytes costs some dozen reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scoring.formats.base import Detection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scoring.formats.source import Source

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

# onnx.proto, message ModelProto: field number to wire type.
MODEL_FIELDS = {
    1: VARINT,  # ir_version
    2: LENGTH,  # producer_name
    3: LENGTH,  # producer_version
    4: LENGTH,  # domain
    5: VARINT,  # model_version
    6: LENGTH,  # doc_string
    7: LENGTH,  # graph
    8: LENGTH,  # opset_import
    14: LENGTH,  # metadata_props
    20: LENGTH,  # training_info
    25: LENGTH,  # functions
    26: LENGTH,  # configuration
}
# Message GraphProto; an ONNX graph has nothing else.
GRAPH_FIELDS = {1, 2, 5, 10, 11, 12, 13, 14, 15, 16}
IR_VERSION, PRODUCER_NAME, PRODUCER_VERSION, GRAPH, OPSET_IMPORT = 1, 2, 3, 7, 8
GRAPH_INITIALIZER, TENSOR_EXTERNAL_DATA = 5, 13
GRAPH_INPUT, VALUE_NAME, VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE = 11, 1, 2, 1, 2
MAX_IR_VERSION = 100
MAX_FIELDS = 100_000
MAX_TEXT = 4096


class WireError(ValueError):
    """The bytes are no protobuf message, or the message is cut off."""


class Field(NamedTuple):
    """One field of a message: where its payload is, and the value of a varint."""

    number: int
    wire: int
    start: int
    end: int
    value: int


def fields(source: Source, start: int, end: int) -> Iterator[Field]:
    """Walks the fields of the message that lies from `start` to `end`.

    Raises:
        WireError: A tag is malformed or a field reaches over the end of the message.
    """
    position = start
    while position < end:
        head = source.read_at(position, min(20, end - position))
        tag, used = _varint(head, 0)
        number, wire = tag >> 3, tag & 7
        value = 0
        body = position + used
        if wire == VARINT:
            value, after = _varint(head, used)
            stop = position + after
        elif wire == LENGTH:
            length, after = _varint(head, used)
            body = position + after
            stop = body + length
        elif wire in (FIXED32, FIXED64):
            stop = body + (4 if wire == FIXED32 else 8)
        else:
            raise WireError(f"wire type {wire}")
        yield Field(number, wire, body, stop, value)
        if stop > end:
            raise WireError("cut off")
        position = stop


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = 0
    for index in range(10):
        if position + index >= len(data):
            raise WireError("cut off")
        byte = data[position + index]
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return result, position + index + 1
    raise WireError("varint too long")


def detect(source: Source) -> Detection | None:
    """An ONNX model, or None where the bytes are something else.

    Raises:
        CorruptModelError: It begins as an ONNX model and is cut off or lacks a part.
    """
    seen: dict[int, Field] = {}
    broken = ""
    try:
        for count, field in enumerate(fields(source, 0, source.size)):
            if MODEL_FIELDS.get(field.number) != field.wire or count > MAX_FIELDS:
                broken = broken or "has content that is no part of an ONNX model"
                break
            seen.setdefault(field.number, field)
    except WireError:
        broken = "is an ONNX model that is cut off or damaged"
    if not _looks_like_onnx(source, seen):
        return None
    if broken or OPSET_IMPORT not in seen:
        raise source.corrupt(broken or "is an ONNX model without its operator set: it is cut off")
    return Detection(
        format="onnx", runtime="onnx", path=source.path, made_with=_maker(source, seen)
    )


def _looks_like_onnx(source: Source, seen: dict[int, Field]) -> bool:
    version, graph = seen.get(IR_VERSION), seen.get(GRAPH)
    if version is None or graph is None or not 1 <= version.value <= MAX_IR_VERSION:
        return False
    try:
        inner = next(fields(source, graph.start, min(graph.end, source.size)), None)
    except WireError:
        return False
    return inner is not None and inner.number in GRAPH_FIELDS and inner.wire == LENGTH


def _maker(source: Source, seen: dict[int, Field]) -> dict[str, str]:
    """The producer that the file names, such as `{"skl2onnx": "1.20.0"}`."""
    name = _text(source, seen.get(PRODUCER_NAME))
    version = _text(source, seen.get(PRODUCER_VERSION))
    return {name: version} if name and version else {}


def _text(source: Source, field: Field | None) -> str:
    if field is None:
        return ""
    length = min(field.end - field.start, MAX_TEXT)
    return source.read_at(field.start, length).decode("utf-8", "replace")


def external_data(source: Source) -> tuple[str, ...]:
    """The files beside an ONNX model that hold its large tensors, as the model names them.

    Raises:
        WireError: The file is no whole ONNX model.
    """
    locations: dict[str, None] = {}
    for graph in fields(source, 0, source.size):
        if (graph.number, graph.wire) != (GRAPH, LENGTH):
            continue
        for tensor in fields(source, graph.start, graph.end):
            if (tensor.number, tensor.wire) == (GRAPH_INITIALIZER, LENGTH):
                locations |= dict.fromkeys(_locations(source, tensor))
    return tuple(locations)


def inputs_without_shape(source: Source) -> tuple[str, ...]:
    """The inputs of an ONNX model that have no shape at all, not even a number of dimensions.

    Raises:
        WireError: The file is no whole ONNX model.
    """
    return tuple(
        name
        for graph in _parts(source, GRAPH, 0, source.size)
        for value in _parts(source, GRAPH_INPUT, graph.start, graph.end)
        if (name := _unshaped(source, value))
    )


def _unshaped(source: Source, value: Field) -> str:
    """The name of a tensor without a shape; empty for every other one."""
    for kind in _parts(source, VALUE_TYPE, value.start, value.end):
        for tensor in _parts(source, TYPE_TENSOR, kind.start, kind.end):
            if any(_parts(source, TENSOR_SHAPE, tensor.start, tensor.end)):
                return ""
    return _text(source, next(_parts(source, VALUE_NAME, value.start, value.end), None))


def _parts(source: Source, number: int, start: int, end: int) -> Iterator[Field]:
    """The messages of one number inside another."""
    for field in fields(source, start, end):
        if (field.number, field.wire) == (number, LENGTH):
            yield field


def _locations(source: Source, tensor: Field) -> Iterator[str]:
    for entry in fields(source, tensor.start, tensor.end):
        if (entry.number, entry.wire) != (TENSOR_EXTERNAL_DATA, LENGTH):
            continue
        pair = {part.number: _text(source, part) for part in fields(source, entry.start, entry.end)}
        if pair.get(1) == "location" and pair.get(2):
            yield pair[2]
