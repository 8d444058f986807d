"""Small ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper


def doubling(path: Path, kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = (None, 2)) -> Path:
    """A model `y = x + x`."""
    x, y = (helper.make_tensor_value_info(name, kind, list(shape)) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path
