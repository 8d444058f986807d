"""Reads the trees of scikit-learn's own estimators, and converts them within skl2onnx."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn import ensemble, tree
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble._iforest import _average_path_length

from scoring.compilation.forests import Forest, Link, Tree

_FORESTS = (
    *(ensemble.RandomForestClassifier, ensemble.RandomForestRegressor),
    *(ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor),
)
_TREES = (
    *(tree.DecisionTreeClassifier, tree.DecisionTreeRegressor),
    *(tree.ExtraTreeClassifier, tree.ExtraTreeRegressor),
)
_BOOSTED = (ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor)
_HISTOGRAM = (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor)
TYPES: tuple[type, ...] = (*_FORESTS, *_TREES, *_BOOSTED, *_HISTOGRAM)

_LINKS: dict[str, tuple[Link, float]] = {
    "HalfBinomialLoss": ("sigmoid", 1.0),
    "ExponentialLoss": ("sigmoid", 2.0),
    "HalfMultinomialLoss": ("softmax", 1.0),
    "HalfSquaredError": ("identity", 1.0),
    "AbsoluteError": ("identity", 1.0),
    "PinballLoss": ("identity", 1.0),
    "HuberLoss": ("identity", 1.0),
    "HalfPoissonLoss": ("exp", 1.0),
    "HalfGammaLoss": ("exp", 1.0),
}


def read_forest(model: Any) -> Forest | None:
    """The trees of an estimator; None for one whose form is not known here."""
    if isinstance(model, _TREES):
        return _averaged([model])
    if isinstance(model, _FORESTS):
        return _averaged(list(model.estimators_))
    if isinstance(model, _BOOSTED):
        return _boosted(model)
    return _histogram(model) if isinstance(model, _HISTOGRAM) else None


def read_isolation_forest(model: ensemble.IsolationForest) -> Forest:
    """Trees whose leaves hold path lengths; the sum is in units of the expected length."""
    lengths = zip(
        model.estimators_,
        model.estimators_features_,
        model._decision_path_lengths,  # noqa: SLF001 - no public form of them
        model._average_path_length_per_tree,  # noqa: SLF001
        strict=True,
    )
    trees = []
    for inner, chosen, path, average in lengths:
        read = _tree(inner.tree_, (path + average - 1.0)[:, None])
        features = np.where(read.feature >= 0, np.asarray(chosen)[read.feature], 0)
        trees.append(replace(read, feature=features))
    expected = float(_average_path_length([model._max_samples])[0])  # noqa: SLF001
    return Forest(trees, 1, np.zeros(1), divisor=len(trees) * expected, rounds_inputs=True)


def _averaged(trees: list[Any]) -> Forest | None:
    """Trees whose leaves hold values or class frequencies, which are averaged."""
    values = trees[0].tree_.value
    classifies = hasattr(trees[0], "classes_")
    if classifies and values.shape[1] > 1:
        return None  # several labels at once, each with probabilities of its own
    targets = values.shape[2] if classifies else values.shape[1]
    return Forest(
        trees=[_tree(inner.tree_, _leaf_values(inner.tree_, classifies)) for inner in trees],
        targets=targets,
        base=np.zeros(targets),
        divisor=float(len(trees)),
        rounds_inputs=True,
    )


def _leaf_values(inner: Any, classifies: bool) -> Any:
    """Shape (nodes, targets); frequencies add up to one in every node."""
    if not classifies:
        return inner.value[:, :, 0]
    counts = inner.value[:, 0, :]
    return counts / counts.sum(axis=1, keepdims=True)


def _tree(inner: Any, weights: Any, target: int = 0) -> Tree:
    return Tree(
        feature=np.asarray(inner.feature, dtype=np.int64),
        threshold=np.asarray(inner.threshold, dtype=np.float64),
        left=np.asarray(inner.children_left, dtype=np.int64),
        right=np.asarray(inner.children_right, dtype=np.int64),
        missing_left=np.asarray(inner.missing_go_to_left, dtype=bool),
        weights=np.asarray(weights, dtype=np.float64),
        target=target,
    )


def _boosted(model: Any) -> Forest | None:
    known = _LINKS.get(type(model._loss).__name__)  # noqa: SLF001 - no public form of it
    constant = isinstance(model.init_, DummyClassifier | DummyRegressor) or model.init_ == "zero"
    if known is None or not constant:
        return None
    link, slope = known
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0]  # noqa: SLF001
    rate = model.learning_rate
    trees = [
        _tree(inner.tree_, rate * inner.tree_.value[:, :, 0], target)
        for stage in model.estimators_
        for target, inner in enumerate(stage)
    ]
    return Forest(trees, len(base), base, rounds_inputs=True, link=link, slope=slope)


def _histogram(model: Any) -> Forest | None:
    known = _LINKS.get(type(model._loss).__name__)  # noqa: SLF001 - no public form of it
    stages = model._predictors  # noqa: SLF001
    splits_categories = any(
        inner.nodes["is_categorical"].any() for stage in stages for inner in stage
    )
    if known is None or splits_categories or not stages:
        return None
    link, slope = known
    base = np.asarray(model._baseline_prediction, dtype=np.float64).ravel()  # noqa: SLF001
    trees = [
        _histogram_tree(inner.nodes, target)
        for stage in stages
        for target, inner in enumerate(stage)
    ]
    return Forest(trees, len(base), base, link=link, slope=slope)


def _histogram_tree(nodes: Any, target: int) -> Tree:
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        weights=nodes["value"].astype(np.float64)[:, None],
        target=target,
    )
