"""Models whose answers everyone can compute, for the tests of the Open Inference Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import DType, ModelSchema, TensorSpec
from serve.server.v2.datatypes import BY_SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from scoring.runtimes.base import Arrays

DTYPES: tuple[DType, ...] = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "string"),
)


def schema(
    inputs: dict[str, tuple[DType, tuple[int | None, ...]]],
    outputs: dict[str, tuple[DType, tuple[int | None, ...]]],
    *,
    missing: bool = False,
    **given: Any,
) -> ModelSchema:
    """A schema from names, dtypes and shapes."""
    return ModelSchema(
        inputs=tuple(TensorSpec(n, d, s, missing=missing) for n, (d, s) in inputs.items()),
        outputs=tuple(TensorSpec(n, d, s) for n, (d, s) in outputs.items()),
        **given,
    )


def samples(dtype: DType, shape: tuple[int, ...] = (2, 3)) -> NDArray[Any]:
    """Values of a dtype, its extremes among them."""
    count = int(np.prod(shape))
    kind = NUMPY_DTYPES[dtype].kind
    if kind == "O":
        texts = ["", "a", "grün", "😀", 'quoted "x"', "line\nbreak"]
        return np.array([texts[i % len(texts)] for i in range(count)], dtype=object).reshape(shape)
    if kind == "b":
        return np.array([i % 2 == 0 for i in range(count)]).reshape(shape)
    info: Any = np.finfo(dtype) if kind == "f" else np.iinfo(NUMPY_DTYPES[dtype])
    values = [info.min, info.max, 0, 1, 2, 3] if kind != "f" else [info.min, info.max, -0.5, 1 / 3]
    return np.array([values[i % len(values)] for i in range(count)], dtype=dtype).reshape(shape)


class Echo:
    """Answers its inputs, each as an output of the name with `_out` behind it."""

    thread_safe = True

    def __init__(self, model_schema: ModelSchema) -> None:
        self.schema = model_schema

    @classmethod
    def of(cls, dtype: DType, shape: tuple[int | None, ...] = (None, 3)) -> Echo:
        """With one input `x` of a dtype."""
        return cls(schema({"x": (dtype, shape)}, {"x_out": (dtype, shape)}, missing=True))

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        return {f"{name}_out": array for name, array in inputs.items()}


def write_identity(path: Path, dtype: DType) -> None:
    """An ONNX file that answers its input `x` as `y`, rows of three."""
    import onnx
    from onnx import TensorProto, helper

    name = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING"}.get(
        BY_SCHEMA[dtype], BY_SCHEMA[dtype]
    )
    kind = getattr(TensorProto, name)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, ["rows", 3])],
        [helper.make_tensor_value_info("y", kind, ["rows", 3])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def write_add_sub(path: Path) -> None:
    """Triton's `simple` model: INPUT0 and INPUT1 to their sum and difference, INT32 [-1, 16]."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        "simple",
        [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["rows", 16])
            for name in ("INPUT0", "INPUT1")
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["rows", 16])
            for name in ("OUTPUT0", "OUTPUT1")
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def onnx_predictor(path: Path) -> Any:
    """An ONNX file as the server loads it."""
    from scoring.formats.onnx import describe
    from scoring.runtimes.onnx import OnnxPredictor, open_session

    session = open_session(path)
    return OnnxPredictor(session, describe(session, path))
