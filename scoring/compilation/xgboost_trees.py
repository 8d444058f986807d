"""Reads the trees of an XGBoost booster from its JSON form; needs no XGBoost of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.compilation.forests import Floats, Forest, Link, Tree

_LINKS: dict[str, Link] = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "binary:logitraw": "identity",
    "binary:hinge": "identity",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:cox": "exp",
    "survival:aft": "exp",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "rank:pairwise": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
}
_LOGISTIC = ("binary:logistic", "reg:logistic")


def read_booster(booster: Any) -> Forest | None:
    """The trees of a booster, up to its best iteration.

    Returns:
        None for a booster whose form is not known here: linear, with categories, with vectors in
        its leaves, or of an objective of the user's.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    trees = learner["gradient_booster"]
    weights = trees.get("weight_drop")
    model = trees.get("gbtree", trees).get("model")
    link = _LINKS.get(learner["objective"]["name"])
    if link is None or not (model or {}).get("trees"):
        return None
    if any(not _is_plain(tree) for tree in model["trees"]):
        return None
    used = _best(booster, model)
    parameters = learner["learner_model_param"]
    targets = max(int(parameters.get("num_class", 0)), int(parameters.get("num_target", 1)), 1)
    return Forest(
        trees=[
            _tree(tree, 1.0 if weights is None else weights[index], model["tree_info"][index])
            for index, tree in enumerate(model["trees"][:used])
        ],
        targets=targets,
        base=_base(parameters["base_score"], learner["objective"]["name"], targets),
        rounds_inputs=True,
        strict=True,
        link=link,
    )


def _is_plain(tree: dict[str, Any]) -> bool:
    vector = int(tree["tree_param"].get("size_leaf_vector", 1)) > 1
    return not vector and not any(tree.get("split_type", ()))


def _best(booster: Any, model: dict[str, Any]) -> int:
    """The number of trees up to the best iteration, where training stopped early."""
    best = booster.attr("best_iteration")
    rounds = model.get("iteration_indptr", [])
    if best is None or int(best) + 1 >= len(rounds):
        return len(model["trees"])
    return int(rounds[int(best) + 1])


def _base(text: str, objective: str, targets: int) -> Floats:
    """The sums before the first tree: one number, or one for each target ("[1E0,2E0]")."""
    given = json.loads(text if text.startswith("[") else f"[{text}]")
    scores = np.broadcast_to(np.asarray(given, dtype=np.float64), (targets,))
    return np.asarray(_margin(objective)(scores), dtype=np.float64)


def _margin(objective: str) -> Callable[[Floats], Any]:
    """From an answer to the sum that gives it."""
    if objective in _LOGISTIC:
        return lambda scores: -np.log(1.0 / scores - 1.0)
    return np.log if _LINKS[objective] == "exp" else np.asarray


def _tree(tree: dict[str, Any], weight: float, target: int) -> Tree:
    left = np.asarray(tree["left_children"], dtype=np.int64)
    conditions: NDArray[np.float64] = np.asarray(tree["split_conditions"], np.float32).astype(
        np.float64
    )
    return Tree(
        feature=np.asarray(tree["split_indices"], dtype=np.int64),
        threshold=conditions,
        left=left,
        right=np.asarray(tree["right_children"], dtype=np.int64),
        missing_left=np.asarray(tree["default_left"], dtype=bool),
        weights=(weight * conditions)[:, None],
        target=target,
    )
