"""Writes models of random weights: a process of its own, so that no other grows by them.

`python -m benchmarks.images.weights FOLDER COUNT BYTES`
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

_FLOAT_BYTES = 4


def model(size: int, seed: int) -> ModelProto:
    """A matrix of this many bytes times a vector."""
    columns = 1000
    rows = max(size // _FLOAT_BYTES // columns, 1)
    weights = np.random.default_rng(seed).standard_normal((rows, columns), dtype="float32")
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[rows, columns], raw_data=weights.tobytes()
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, rows])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, columns])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "m", [x], [y])
    graph.initializer.append(tensor)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def main() -> None:
    folder, count, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        content = model(size, number).SerializeToString()
        (folder / f"{number:03}.onnx").write_bytes(content)


if __name__ == "__main__":
    main()
