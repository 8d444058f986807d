"""A workspace with the package of an ONNX model that doubles two numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from serve import Workspace

if TYPE_CHECKING:
    from pathlib import Path

NAME = "twice"


def doubling_workspace(folder: Path) -> Path:
    """Registers the model, and builds its package; returns the workspace's folder.

    Args:
        folder: What the model's file and the workspace are put into.
    """
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y")
    )
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], NAME, [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / f"{NAME}.onnx")
    with Workspace(folder / "workspace") as opened:
        opened.packages.build(opened.models.register(NAME, folder / f"{NAME}.onnx"))
    return folder / "workspace"
