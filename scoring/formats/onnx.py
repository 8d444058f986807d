"""Loads ONNX files and reads their schema from the session, without the `onnx` package.

onnxruntime and numpy are imported when a file is loaded: to find its data files needs neither.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec

from scoring.errors import (
    CorruptModelError,
    ModelNotFoundError,
    ScoringError,
    UnsupportedModelError,
)
from scoring.formats.base import Detection, LoadedModel, Trust
from scoring.formats.protobuf import WireError, external_data, inputs_without_shape
from scoring.formats.source import open_source
from scoring.schema import CIRCUIT_NOTE, DType, ModelSchema, TensorSpec

_ELEMENTS: dict[str, DType] = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "string",
}
_MAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
_PROBE_SIZES = (1, 8, 32, 224)
_MAX_PROBE = 50_000_000


def load(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:  # noqa: ARG001
    """Loads an ONNX model.

    Raises:
        ModelFileError: A data file is missing or outside the folder, the content is broken, or
            onnxruntime cannot run it.
    """
    from scoring.runtimes.dependencies import pinned  # noqa: PLC0415
    from scoring.runtimes.onnx import OnnxPredictor, open_session  # noqa: PLC0415

    data_files(detection.path)
    session = open_session(detection.path)
    schema = describe(session, detection.path)
    return LoadedModel(
        detection=detection,
        model=session,
        schema=schema,
        predictor=OnnxPredictor(session, schema),
        requirements=pinned("numpy", "onnxruntime"),
    )


def data_files(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX model that hold its weights: they belong to the model.

    Raises:
        CorruptModelError: The model is cut off, or names a file outside its folder.
        ModelNotFoundError: One of them is missing.
    """
    with open_source(path) as source:
        try:
            names = external_data(source)
        except WireError as error:
            raise source.corrupt("is an ONNX model that is cut off or damaged") from error
    return tuple(_data_file(path, name) for name in names)


def _data_file(path: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    target = path.parent / name
    outside = relative.is_absolute() or ".." in relative.parts or bool(PureWindowsPath(name).drive)
    if not outside and target.exists():
        outside = not target.resolve().is_relative_to(path.parent.resolve())
    if outside:
        raise CorruptModelError(
            f"{path} names a data file outside its folder: {name!r}.",
            hint="Save the model again with its data beside it.",
            where=str(path),
        )
    if not target.is_file():
        raise ModelNotFoundError(
            f"{path} keeps weights in {name!r}, which is not beside it.",
            hint="Keep the .onnx file and its data files in one folder.",
            where=str(target),
        )
    return target


def describe(session: Any, path: Path) -> ModelSchema:
    """The schema of a session, with what a probing run tells of missing values and labels.

    Raises:
        UnsupportedModelError: An input or output of a type that requests cannot carry.
    """
    inputs = tuple(_input(node, path) for node in session.get_inputs())
    outputs = tuple(_output(node, path) for node in session.get_outputs())
    if not inputs or not outputs:
        raise UnsupportedModelError(
            f"{path} has no {'outputs' if inputs else 'inputs'}.", where=str(path)
        )
    if not all(spec.shape for spec in inputs):
        _require_shapes(path)
    schema = ModelSchema(inputs=inputs, outputs=outputs, notes=_notes(session))
    return _probed(session, schema)


def _require_shapes(path: Path) -> None:
    """Tells inputs without a shape from scalars: onnxruntime has the same empty list for both."""
    with open_source(path) as source:
        try:
            names = inputs_without_shape(source)
        except WireError as error:
            raise source.corrupt("is an ONNX model that is cut off or damaged") from error
    if names:
        raise UnsupportedModelError(
            f"{path} does not say how many dimensions its input {names[0]!r} has.",
            hint="Export the model with the shapes of its inputs; free sizes are well.",
            where=names[0],
        )


def _notes(session: Any) -> dict[str, str]:
    """What a compiled circuit tells of the circuit that it was made of."""
    digest = session.get_modelmeta().custom_metadata_map.get(CIRCUIT_NOTE)
    return {CIRCUIT_NOTE: digest} if digest else {}


def _input(node: Any, path: Path) -> TensorSpec:
    dtype = _ELEMENTS.get(node.type)
    if dtype is None:
        raise UnsupportedModelError(
            f"{path} takes {node.type} as {node.name!r}; requests can carry numbers and strings.",
            hint="Export the model with tensor inputs.",
            where=node.name,
        )
    return TensorSpec(name=node.name, dtype=dtype, shape=_shape(node))


def _output(node: Any, path: Path) -> TensorSpec:
    if node.type in _MAPS:
        return TensorSpec(name=node.name, dtype="map", shape=(None,))
    dtype = _ELEMENTS.get(node.type)
    if dtype is None:
        raise UnsupportedModelError(
            f"{path} answers {node.type} as {node.name!r}, which an answer cannot carry.",
            hint="Export the model with tensor outputs.",
            where=node.name,
        )
    return TensorSpec(name=node.name, dtype=dtype, shape=_shape(node))


def _shape(node: Any) -> tuple[int | None, ...]:
    """The dimensions; symbolic and unknown ones (names, None, negative numbers) are free."""
    return tuple(d if isinstance(d, int) and d >= 0 else None for d in node.shape or ())


def _probed(session: Any, schema: ModelSchema) -> ModelSchema:
    """Runs a made-up batch to learn the labels of maps, and which inputs take NaN.

    A model that cannot run on zeros (a sequence model with a length of its own, say) is left as
    its graph describes it.
    """
    from scoring.formats import probing  # noqa: PLC0415
    from scoring.runtimes.onnx import OnnxPredictor  # noqa: PLC0415

    predictor = OnnxPredictor(session, schema)
    for size in _PROBE_SIZES:
        batch = probing.zeros(schema.inputs, size=size)
        if sum(array.size for array in batch.values()) > _MAX_PROBE:
            break
        try:
            answer = predictor.predict(batch)
        except ScoringError:
            continue
        return msgspec.structs.replace(
            schema,
            inputs=probing.with_missing(schema.inputs, batch, predictor.predict),
            classes=_labels(schema, answer),
        )
    return schema


def _labels(schema: ModelSchema, answer: dict[str, Any]) -> tuple[str | int | float | bool, ...]:
    rows: Any = next((answer[spec.name] for spec in schema.outputs if spec.dtype == "map"), [])
    return tuple(rows[0]) if rows else ()
