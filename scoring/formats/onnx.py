"""Loads ONNX files and reads their schema from the session, without the `onnx` package."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from scoring.formats.base import Detection, LoadedModel, Trust
from scoring.formats.protobuf import WireError, external_data
from scoring.formats.source import open_source
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.runtimes.dependencies import pinned
from scoring.runtimes.onnx import OnnxPredictor, open_session
from scoring.schema import DType, ModelSchema, TensorSpec

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
_MAX_ROWS = 128


def load(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:  # noqa: ARG001
    """Loads an ONNX model.

    Raises:
        ModelFileError: A data file is missing or outside the folder, the content is broken, or
            onnxruntime cannot run it.
    """
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
    schema = ModelSchema(inputs=inputs, outputs=outputs)
    return _probed(session, schema)


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
    found = _working_batch(session, schema)
    if found is None:
        return schema
    feed, answer = found
    inputs = tuple(
        TensorSpec(
            spec.name, spec.dtype, spec.shape, missing=_takes_nan(session, schema, spec, feed)
        )
        for spec in schema.inputs
    )
    return ModelSchema(inputs=inputs, outputs=schema.outputs, classes=_labels(schema, answer))


def _working_batch(
    session: Any, schema: ModelSchema
) -> tuple[dict[str, NDArray[Any]], list[Any]] | None:
    for size in _PROBE_SIZES:
        feed = {spec.name: _zeros(spec, 1, size) for spec in schema.inputs}
        if sum(array.size for array in feed.values()) > _MAX_PROBE:
            return None
        answer = _run(session, schema, feed)
        if answer is not None:
            return feed, answer
        if all(spec.shape[1:].count(None) == 0 for spec in schema.inputs):
            return None
    return None


def _zeros(spec: TensorSpec, rows: int, size: int) -> NDArray[Any]:
    """A batch of zeros (empty strings); free dimensions after the first get `size`."""
    shape = [
        dimension if dimension is not None else (rows if axis == 0 else size)
        for axis, dimension in enumerate(spec.shape)
    ]
    fill: Any = "" if spec.dtype == "string" else 0
    return np.full(shape, fill, dtype=NUMPY_DTYPES[spec.dtype])


def _run(session: Any, schema: ModelSchema, feed: dict[str, NDArray[Any]]) -> list[Any] | None:
    try:
        return list(session.run([output.name for output in schema.outputs], feed))
    except Exception:  # noqa: BLE001 - any failure says that these inputs do not work
        return None


def _takes_nan(
    session: Any, schema: ModelSchema, spec: TensorSpec, feed: dict[str, NDArray[Any]]
) -> bool:
    """Whether NaN in each feature of an input leaves every number of the answer finite."""
    if not spec.dtype.startswith("float"):
        return False
    probes = _with_nan(spec, feed[spec.name])
    for probe in probes:
        rows = {
            name: probe if name == spec.name else np.repeat(array, len(probe), axis=0)
            if array.ndim and len(probe) != len(array) else array
            for name, array in feed.items()
        }  # fmt: skip
        answer = _run(session, schema, rows)
        if answer is None or not _all_finite(schema, answer):
            return False
    return bool(probes)


def _with_nan(spec: TensorSpec, zeros: NDArray[Any]) -> list[NDArray[Any]]:
    """Batches with one feature missing in each row, or all of them where the batch is fixed."""
    if spec.shape[:1] == (None,) and zeros.ndim == 2:  # noqa: PLR2004
        width = zeros.shape[1]
        batch = np.zeros((min(width, _MAX_ROWS), width), dtype=zeros.dtype)
        columns = np.linspace(0, width - 1, len(batch)).astype(int)
        batch[np.arange(len(batch)), columns] = np.nan
        return [batch]
    return [np.full_like(zeros, np.nan)]


def _all_finite(schema: ModelSchema, answer: list[Any]) -> bool:
    """Whether there are numbers in the answer and all are finite; labels alone prove nothing."""
    numbers = [
        np.asarray([list(row.values()) for row in value] if spec.dtype == "map" else value)
        for spec, value in zip(schema.outputs, answer, strict=True)
        if spec.dtype == "map" or spec.dtype.startswith("float")
    ]
    return bool(numbers) and all(bool(np.isfinite(array).all()) for array in numbers)


def _labels(schema: ModelSchema, answer: list[Any]) -> tuple[str | int | float | bool, ...]:
    for spec, value in zip(schema.outputs, answer, strict=True):
        if spec.dtype == "map" and value:
            return tuple(value[0])
    return ()
