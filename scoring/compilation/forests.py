"""Trees as plain arrays, and their ONNX nodes.

Thresholds and leaves stay doubles, so that a value beside a threshold goes the way that it goes in
the original; the converters of skl2onnx and onnxmltools round both to float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Link = Literal["identity", "sigmoid", "softmax", "exp", "square", "log1p_exp"]


@dataclass(frozen=True)
class Tree:
    """One tree; each array has one element for each node, the root first.

    Attributes:
        feature: The feature that a node splits on.
        threshold: Values up to and including it go left (see `Forest.strict`).
        left: The child's position; negative for a leaf.
        right: As `left`.
        missing_left: Whether NaN goes left.
        weights: Shape (nodes, k): what a leaf adds to each of k targets.
        target: The first of these targets.
    """

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: NDArray[np.bool_]
    weights: Floats
    target: int = 0


@dataclass(frozen=True)
class Forest:
    """Trees, and what becomes of the sum of their leaves.

    Attributes:
        trees: All of them.
        targets: The number of sums.
        base: Added to each sum.
        divisor: Of the sums, after adding.
        rounds_inputs: The original rounds its inputs to float32, as scikit-learn's trees do.
        link: From sums to probabilities or values.
        slope: Factor of the sums before the link.
        strict: A value that is equal to a threshold goes right, as XGBoost has it.
    """

    trees: list[Tree]
    targets: int
    base: Floats
    divisor: float = 1.0
    rounds_inputs: bool = False
    link: Link = "identity"
    slope: float = 1.0
    strict: bool = False


class Nodes(Protocol):
    """Where nodes go: a graph under construction."""

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """Adds a node with one output; returns that output's name."""
        ...

    def constant(self, value: NDArray[Any]) -> str:
        """Adds an initializer; returns its name."""
        ...


def add_sums(nodes: Nodes, forest: Forest, inputs: str) -> str:
    """The sums of all trees: a float32 value of shape (rows, targets)."""
    if forest.rounds_inputs:
        inputs = nodes.add("Cast", [inputs], to=TensorProto.FLOAT)
    inputs = nodes.add("Cast", [inputs], to=TensorProto.DOUBLE)
    sums = nodes.add("TreeEnsembleRegressor", [inputs], domain="ai.onnx.ml", **_attributes(forest))
    if forest.divisor != 1.0:
        sums = nodes.add("Div", [sums, nodes.constant(np.array(forest.divisor, np.float32))])
    if forest.slope != 1.0:
        sums = nodes.add("Mul", [sums, nodes.constant(np.array(forest.slope, np.float32))])
    return sums


def add_values(nodes: Nodes, forest: Forest, inputs: str) -> str:
    """The answer of a regressor: float32, of shape (rows, targets)."""
    sums = add_sums(nodes, forest, inputs)
    return _LINKS[forest.link](nodes, sums)


def add_probabilities(nodes: Nodes, forest: Forest, inputs: str) -> str:
    """The answer of a classifier: float32, of shape (rows, classes)."""
    values = add_values(nodes, forest, inputs)
    if forest.targets > 1:
        return values
    one = nodes.constant(np.array(1.0, np.float32))
    return nodes.add("Concat", [nodes.add("Sub", [one, values]), values], axis=1)


def add_labels(nodes: Nodes, probabilities: str, classes: NDArray[Any]) -> str:
    """The class of the highest probability, the first of equal ones: shape (rows,)."""
    chosen = nodes.add("ArgMax", [probabilities], axis=1, keepdims=0)
    return nodes.add("Gather", [nodes.constant(classes), chosen], axis=0)


def _square(nodes: Nodes, sums: str) -> str:
    return nodes.add("Mul", [sums, nodes.add("Abs", [sums])])


_LINKS: dict[Link, Callable[[Nodes, str], str]] = {
    "identity": lambda _, sums: sums,
    "sigmoid": lambda nodes, sums: nodes.add("Sigmoid", [sums]),
    "softmax": lambda nodes, sums: nodes.add("Softmax", [sums], axis=1),
    "exp": lambda nodes, sums: nodes.add("Exp", [sums]),
    "log1p_exp": lambda nodes, sums: nodes.add("Softplus", [sums]),
    "square": _square,
}


def _attributes(forest: Forest) -> dict[str, Any]:
    """The attributes of `TreeEnsembleRegressor`, version 3 of `ai.onnx.ml`."""
    trees = forest.trees
    sizes = [len(tree.feature) for tree in trees]
    leaf = np.concatenate([tree.left < 0 for tree in trees])
    modes = np.where(leaf, "LEAF", "BRANCH_LT" if forest.strict else "BRANCH_LEQ").tolist()

    def joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
        return np.where(leaf, 0, np.concatenate(parts))

    return {
        "aggregate_function": "SUM",
        "post_transform": "NONE",
        "n_targets": forest.targets,
        "base_values_as_tensor": _tensor("base", forest.base),
        "nodes_treeids": np.repeat(np.arange(len(trees)), sizes).tolist(),
        "nodes_nodeids": np.concatenate([np.arange(size) for size in sizes]).tolist(),
        "nodes_featureids": joined([tree.feature for tree in trees]).tolist(),
        "nodes_modes": modes,
        "nodes_values_as_tensor": _tensor("splits", joined([t.threshold for t in trees])),
        "nodes_truenodeids": joined([tree.left for tree in trees]).tolist(),
        "nodes_falsenodeids": joined([tree.right for tree in trees]).tolist(),
        "nodes_missing_value_tracks_true": joined(
            [tree.missing_left.astype(np.int64) for tree in trees]
        ).tolist(),
        **_leaves(trees),
    }


def _leaves(trees: list[Tree]) -> dict[str, Any]:
    """What each leaf adds to each of its targets."""
    tree_ids, node_ids, target_ids, weights = [], [], [], []
    for index, tree in enumerate(trees):
        leaves = np.flatnonzero(tree.left < 0)
        width = tree.weights.shape[1]
        tree_ids.append(np.full(len(leaves) * width, index))
        node_ids.append(np.repeat(leaves, width))
        target_ids.append(np.tile(np.arange(tree.target, tree.target + width), len(leaves)))
        weights.append(tree.weights[leaves].ravel())
    return {
        "target_treeids": np.concatenate(tree_ids).tolist(),
        "target_nodeids": np.concatenate(node_ids).tolist(),
        "target_ids": np.concatenate(target_ids).tolist(),
        "target_weights_as_tensor": _tensor("weights", np.concatenate(weights)),
    }


def _tensor(name: str, values: NDArray[Any]) -> Any:
    return numpy_helper.from_array(np.asarray(values, dtype=np.float64), name)
