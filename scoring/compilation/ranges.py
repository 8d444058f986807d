"""What a fitted model tells about the data that it was trained on, column by column.

Estimators are told by their fitted attributes rather than by their classes, so that this needs no
framework, and serves classes that only look like those of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.compilation.splits import booster_splits

Floats = NDArray[np.float64]

_MAX_TREES = 64
_MAX_ROWS = 2048
_ROW_ATTRIBUTES = (
    *("_fit_X", "support_vectors_", "cluster_centers_", "theta_", "means_", "centroids_"),
    *("X_train_", "X_fit_", "X_", "subcluster_centers_"),
)
_INNER_ATTRIBUTES = (
    *("estimators_", "estimator_", "best_estimator_", "regressor_", "calibrated_classifiers_"),
    *("base_estimator_", "classifiers_"),
)


@dataclass
class Column:
    """What is known of one input column.

    Attributes:
        points: Values at which the model's answer may change, or that it was trained on.
        normals: Pairs of mean and standard deviation.
        values: Categories.
        unknown: A category that is none of `values` is allowed.
        words: Words of a text.
    """

    points: list[Floats] = field(default_factory=list)
    normals: list[tuple[float, float]] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    unknown: bool = False
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Feature:
    """A column as an inner estimator sees it: the column's value is `seen * scale + shift`."""

    column: int
    scale: float = 1.0
    shift: float = 0.0

    def back(self, seen: Any) -> Floats:
        """The column's values for values that the inner estimator would see."""
        return np.asarray(seen, dtype=np.float64) * self.scale + self.shift


Features = Sequence[Feature | None]


@dataclass
class Ranges:
    """What is known of all columns.

    Attributes:
        columns: One for each column.
        rows: Whole rows of numbers, shape (n, columns), that lie where the data lay.
    """

    columns: list[Column]
    rows: list[Floats] = field(default_factory=list)


def ranges_of(model: Any, columns: int) -> Ranges:
    """Collects what a fitted estimator or booster knows of its input columns."""
    ranges = Ranges([Column() for _ in range(columns)])
    _explore(model, [Feature(index) for index in range(columns)], ranges)
    return ranges


def _explore(model: Any, features: Features, ranges: Ranges) -> Features:
    """Collects from one estimator; returns its outputs as features, nothing where unknown."""
    if isinstance(model, str) or model is None:
        return features if model == "passthrough" else ()
    if hasattr(model, "steps"):
        for _, step in model.steps:
            features = _explore("passthrough" if step is None else step, features, ranges)
        return features
    if hasattr(model, "inverse_func") and getattr(model, "func", None) is None:
        return features  # a function transformer without a function: what "passthrough" becomes
    if hasattr(model, "transformers_"):
        return _explore_columns(model, features, ranges)
    if hasattr(model, "transformer_list"):
        parts = [_explore(inner, features, ranges) for _, inner in model.transformer_list]
        return [feature for part in parts for feature in part] if all(parts) else ()
    if not features:
        return ()
    _explore_inner(model, features, ranges)
    for collect in (_splits, _categories, _words, _edges, _rows, _bayes, _components):
        collect(model, features, ranges)
    return _transformed(model, features, ranges)


def _explore_columns(model: Any, features: Features, ranges: Ranges) -> Features:
    """A column transformer: each part sees its own columns, and fills its own slice."""
    positions = model._transformer_to_input_indices  # noqa: SLF001 - no public form of it
    slices = model.output_indices_
    width = max((part.stop for part in slices.values()), default=0)
    outputs: list[Feature | None] = [None] * width
    for name, inner, _ in model.transformers_:
        seen = [features[index] for index in positions[name]] if features else []
        result = _explore(inner, seen, ranges)
        part = slices[name]
        if len(result) == part.stop - part.start:
            outputs[part] = list(result)
    return outputs


def _explore_inner(model: Any, features: Features, ranges: Ranges) -> None:
    """The estimators that a meta-estimator holds, on the columns that each was given."""
    chosen = getattr(model, "estimators_features_", None)
    for attribute in _INNER_ATTRIBUTES:
        inner = getattr(model, attribute, None)
        if inner is None or isinstance(inner, str):
            continue
        for position, estimator in enumerate(_flat(inner)):
            seen = features
            if chosen is not None and position < len(chosen):
                seen = [features[index] for index in chosen[position]]
            _explore(getattr(estimator, "estimator", estimator), seen, ranges)


def _flat(value: Any) -> list[Any]:
    """At most `_MAX_TREES` estimators, evenly spread, of a list or an array of any depth."""
    if not isinstance(value, list | tuple | np.ndarray):
        return [value]
    found = [inner for item in value for inner in _flat(item)]
    step = max(1, -(-len(found) // _MAX_TREES))
    return found[::step]


def _add_points(feature: Feature | None, seen: Any, ranges: Ranges) -> None:
    if feature is None:
        return
    values = feature.back(seen).ravel()
    values = values[np.isfinite(values)]
    if values.size:
        ranges.columns[feature.column].points.append(values)


def _splits(model: Any, features: Features, ranges: Ranges) -> None:
    """Thresholds of trees, whatever made them."""
    for index, thresholds in tree_splits(model):
        if 0 <= index < len(features):
            _add_points(features[index], thresholds, ranges)


def tree_splits(model: Any) -> Iterable[tuple[int, Floats]]:
    """Pairs of feature index and thresholds of one estimator's own trees."""
    if hasattr(model, "tree_"):
        tree = model.tree_
        inner = np.asarray(tree.children_left) >= 0
        return _grouped(np.asarray(tree.feature)[inner], np.asarray(tree.threshold)[inner])
    if hasattr(model, "_predictors"):
        return _histogram_splits(model)
    return _grouped(*booster_splits(model))


def _histogram_splits(model: Any) -> Iterable[tuple[int, Floats]]:
    predictors = [predictor for group in model._predictors for predictor in group]  # noqa: SLF001
    step = max(1, len(predictors) // _MAX_TREES)
    nodes = np.concatenate([predictor.nodes for predictor in predictors[::step]] or [np.empty(0)])
    if not nodes.size:
        return []
    inner = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)]
    return _grouped(inner["feature_idx"], inner["num_threshold"])


def _grouped(features: Any, thresholds: Any) -> Iterable[tuple[int, Floats]]:
    indices = np.asarray(features, dtype=np.int64)
    values = np.asarray(thresholds, dtype=np.float64)
    return [(int(index), np.unique(values[indices == index])) for index in np.unique(indices)]


def _categories(model: Any, features: Features, ranges: Ranges) -> None:
    """Encoders' categories; one that is unknown may come where the encoder allows it."""
    categories = getattr(model, "categories_", None)
    if not isinstance(categories, list | tuple) or len(categories) != len(features):
        return
    allowed = getattr(model, "handle_unknown", "error") != "error"
    for feature, known in zip(features, categories, strict=True):
        if feature is not None:
            column = ranges.columns[feature.column]
            column.values += [value for value in np.asarray(known).tolist() if value == value]  # noqa: PLR0124 - NaN
            column.unknown |= allowed


def _words(model: Any, features: Features, ranges: Ranges) -> None:
    vocabulary = getattr(model, "vocabulary_", None)
    if isinstance(vocabulary, dict) and features[0] is not None:
        words = sorted(word for word in vocabulary if isinstance(word, str))
        stop_words = model.get_stop_words() if hasattr(model, "get_stop_words") else None
        words += sorted(stop_words or ())[:: max(1, len(stop_words or ()) // len(words))]
        ranges.columns[features[0].column].words += words


def _edges(model: Any, features: Features, ranges: Ranges) -> None:
    """Bin edges and quantiles: one sequence of numbers for each feature."""
    edges = getattr(model, "bin_edges_", None)
    if edges is None and hasattr(model, "quantiles_"):
        edges = np.asarray(model.quantiles_).T
    if edges is None:
        edges = getattr(getattr(model, "_bin_mapper", None), "bin_thresholds_", None)
    if edges is not None and len(edges) == len(features):
        for feature, values in zip(features, edges, strict=True):
            _add_points(feature, values, ranges)


def _rows(model: Any, features: Features, ranges: Ranges) -> None:
    """Whole rows that the model keeps: training data, support vectors, centres."""
    for attribute in _ROW_ATTRIBUTES:
        kept = vars(model).get(attribute) if hasattr(model, "__dict__") else None
        if kept is not None:
            kept = kept.toarray() if hasattr(kept, "toarray") else np.asarray(kept)
            if kept.ndim == 2 and kept.dtype.kind in "fiu" and kept.shape[1] == len(features):  # noqa: PLR2004
                _add_rows(kept, features, ranges)


def _add_rows(kept: NDArray[Any], features: Features, ranges: Ranges) -> None:
    step = max(1, len(kept) // _MAX_ROWS)
    kept = kept[::step][:_MAX_ROWS]
    for index, feature in enumerate(features):
        _add_points(feature, kept[:, index], ranges)
    columns = [feature.column for feature in features if feature is not None]
    if sorted(columns) == list(range(len(ranges.columns))):
        whole = np.empty(kept.shape, dtype=np.float64)
        for index, feature in enumerate(features):
            if feature is not None:
                whole[:, feature.column] = feature.back(kept[:, index])
        ranges.rows.append(whole)


def _bayes(model: Any, features: Features, ranges: Ranges) -> None:
    if hasattr(model, "theta_") and hasattr(model, "var_"):
        for means, variances in zip(model.theta_, model.var_, strict=True):
            _add_normals(features, means, np.sqrt(variances), ranges)
    elif hasattr(model, "feature_log_prob_"):
        for feature in features:
            _add_points(feature, [0.0, 1.0, 2.0, 3.0, 8.0], ranges)


def _components(model: Any, features: Features, ranges: Ranges) -> None:
    """PCA and its kin: rows on the main axes around the mean."""
    needed = ("mean_", "components_", "explained_variance_")
    if not all(hasattr(model, name) for name in needed) or len(model.mean_) != len(features):
        return
    steps = np.sqrt(np.maximum(model.explained_variance_, 0.0))[:, None] * model.components_
    _add_rows(np.concatenate([model.mean_ + steps, model.mean_ - steps]), features, ranges)
    _add_normals(features, model.mean_, np.sqrt((steps**2).sum(axis=0)), ranges)


def _add_normals(features: Features, means: Any, scales: Any, ranges: Ranges) -> None:
    for feature, mean, scale in zip(features, means, scales, strict=True):
        if feature is not None:
            pair = (float(feature.back(mean)), abs(float(scale) * feature.scale))
            ranges.columns[feature.column].normals.append(pair)


def _transformed(model: Any, features: Features, ranges: Ranges) -> Features:
    """The outputs of a scaler or an imputer, each of which is still one column."""
    for recognises, follow in _FOLLOWERS:
        if all(hasattr(model, name) for name in recognises):
            return follow(model, features, ranges)
    return ()


def _follow_standard(model: Any, features: Features, ranges: Ranges) -> Features:
    size = len(features)
    means = np.zeros(size) if model.mean_ is None else np.asarray(model.mean_)
    scales = np.ones(size) if model.scale_ is None else np.asarray(model.scale_)
    if means.shape != (size,) or scales.shape != (size,):
        return ()
    _add_normals(features, means, scales, ranges)
    return _affine(features, scales if model.with_std else np.ones(size), means)


def _follow_minmax(model: Any, features: Features, ranges: Ranges) -> Features:
    for index, feature in enumerate(features):
        _add_points(feature, np.linspace(model.data_min_[index], model.data_max_[index], 9), ranges)
    return _affine(features, 1.0 / model.scale_, -model.min_ / model.scale_)


def _follow_maxabs(model: Any, features: Features, ranges: Ranges) -> Features:
    for index, feature in enumerate(features):
        size = model.max_abs_[index]
        _add_points(feature, np.linspace(-size, size, 9), ranges)
    return _affine(features, model.scale_, np.zeros(len(features)))


def _follow_robust(model: Any, features: Features, ranges: Ranges) -> Features:
    size = len(features)
    centres = np.zeros(size) if model.center_ is None else model.center_
    scales = np.ones(size) if model.scale_ is None else model.scale_
    _add_normals(features, centres, scales, ranges)
    return _affine(features, scales, centres)


def _follow_imputer(model: Any, features: Features, ranges: Ranges) -> Features:
    statistics = np.asarray(model.statistics_, dtype=object)
    for feature, value in zip(features, statistics, strict=True):
        if isinstance(value, str) and feature is not None:
            ranges.columns[feature.column].values.append(value)
        elif not isinstance(value, str):
            _add_points(feature, [value], ranges)
    return features


def _affine(features: Features, scales: Any, shifts: Any) -> Features:
    """Features behind `seen = (value - shift) / scale`."""
    return [
        None
        if feature is None
        else Feature(
            feature.column,
            feature.scale * float(scale),
            feature.scale * float(shift) + feature.shift,
        )
        for feature, scale, shift in zip(features, scales, shifts, strict=True)
    ]


_Follower = Callable[[Any, Features, Ranges], Features]
_FOLLOWERS: tuple[tuple[tuple[str, ...], _Follower], ...] = (
    (("mean_", "var_", "scale_", "with_std"), _follow_standard),
    (("data_min_", "data_max_", "min_", "scale_"), _follow_minmax),
    (("max_abs_", "scale_"), _follow_maxabs),
    (("center_", "scale_"), _follow_robust),
    (("statistics_",), _follow_imputer),
)
