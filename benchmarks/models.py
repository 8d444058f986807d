"""The models that everyone serves: the iris regression, and one of 784 inputs."""

from __future__ import annotations

from pathlib import Path

PIXELS = 784
CLASSES = 10


def make_iris(folder: Path) -> Path:
    """scikit-learn's logistic regression of the iris data, compiled to ONNX."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(x, y)
    path = folder / "iris.onnx"
    onnx = to_onnx(model, x[:1].astype("float32"), options={"zipmap": False})
    path.write_bytes(onnx.SerializeToString())
    return path


def make_pixels(folder: Path) -> Path:
    """One product with a matrix, a softmax and an argmax: as little model as there can be."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    weights = generator.standard_normal((PIXELS, CLASSES)).astype("float32")
    bias = generator.standard_normal(CLASSES).astype("float32")
    nodes = [
        helper.make_node("Gemm", ["X", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", PIXELS])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", CLASSES]),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "pixels.onnx"
    path.write_bytes(model.SerializeToString())
    return path
