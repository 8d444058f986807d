"""Reads the trees of a LightGBM booster from its text form; needs no LightGBM of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.compilation.forests import Forest, Link, Tree

_LINKS: dict[str, Link] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "log1p_exp",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
    "": "identity",
}
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_SHIFT = 2
_ZERO, _NAN = 1, 2


def read_booster(booster: Any) -> Forest | None:
    """The trees of a booster, up to its best iteration.

    Returns:
        None for a booster whose form is not known here: with categories, with zero as missing,
        with linear leaves, or of an objective of another kind.
    """
    head, *sections = booster.model_to_string().split("\nTree=")
    header = _fields(head)
    objective, options = _objective(header.get("objective", ""))
    link = _LINKS.get(objective)
    if link is None or not sections:
        return None
    targets = int(header["num_tree_per_iteration"])
    trees = [_tree(_fields(text), index % targets) for index, text in enumerate(sections)]
    known = [tree for tree in trees if tree is not None]
    if len(known) < len(trees):
        return None
    return Forest(
        trees=known,
        targets=targets,
        base=np.zeros(targets),
        divisor=len(trees) / targets if "average_output" in head.splitlines() else 1.0,
        link="square" if link == "identity" and "sqrt" in options else link,
        slope=float(options.get("sigmoid", 1.0)),
    )


def _fields(text: str) -> dict[str, str]:
    """The `key=value` lines of one section; the text after the last tree is none of it."""
    lines = text.split("\nend of trees", 1)[0].splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key: value for key, separator, value in pairs if separator}


def _objective(text: str) -> tuple[str, dict[str, str]]:
    """The name, and its options: "binary sigmoid:1"."""
    name, *words = text.split(" ")
    pairs = (word.partition(":") for word in words)
    return name, {key: value for key, _, value in pairs}


def _tree(fields: dict[str, str], target: int) -> Tree | None:
    """One tree; None where it has splits or leaves of a kind that is not known here."""
    kinds = _numbers(fields.get("decision_type", ""))
    missing = kinds >> _MISSING_SHIFT
    linear = fields.get("is_linear", "0") != "0"
    if linear or (kinds & _CATEGORICAL).any() or (missing == _ZERO).any():
        return None
    inner = len(kinds)
    leaves = np.array(fields["leaf_value"].split(), dtype=np.float64)
    thresholds = np.array(fields.get("threshold", "").split(), dtype=np.float64)
    # Without a direction of its own, NaN is taken as zero.
    missing_left = np.where(missing == _NAN, (kinds & _DEFAULT_LEFT) > 0, thresholds >= 0.0)
    return Tree(
        feature=_padded(_numbers(fields.get("split_feature", "")), leaves, 0),
        threshold=_padded(thresholds, leaves, 0),
        left=_padded(_children(fields.get("left_child", ""), inner), leaves, -1),
        right=_padded(_children(fields.get("right_child", ""), inner), leaves, -1),
        missing_left=_padded(missing_left, leaves, 0),
        weights=np.concatenate([np.zeros(inner), leaves])[:, None],
        target=target,
    )


def _numbers(text: str) -> NDArray[np.int64]:
    return np.array(text.split(), dtype=np.int64)


def _children(text: str, inner: int) -> NDArray[np.int64]:
    """Positions of children; LightGBM counts leaves by themselves, as -1, -2 and so on."""
    children = _numbers(text)
    return np.where(children >= 0, children, inner - 1 - children)


def _padded(values: NDArray[Any], leaves: NDArray[Any], filler: int) -> NDArray[Any]:
    """Values of the inner nodes, which stand first, and a filler for each leaf."""
    return np.concatenate([values, np.full(len(leaves), filler, dtype=values.dtype)])
