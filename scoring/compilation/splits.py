"""Thresholds of the trees of XGBoost and LightGBM, read from the boosters' own text forms."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NONE: tuple[NDArray[np.int64], NDArray[np.float64]] = (
    np.empty(0, dtype=np.int64),
    np.empty(0, dtype=np.float64),
)


def booster_splits(model: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The splits of a booster, or of the wrapper that scikit-learn pipelines hold.

    Returns:
        Feature indices and thresholds, one of each for every numeric split; empty for a model that
        is no booster.
    """
    if hasattr(model, "get_booster"):
        return _xgboost(model.get_booster())
    if hasattr(model, "save_raw"):
        return _xgboost(model)
    if hasattr(model, "booster_"):
        return _lightgbm(model.booster_)
    if hasattr(model, "model_to_string"):
        return _lightgbm(model)
    return _NONE


def _xgboost(booster: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    document = json.loads(bytes(booster.save_raw("json")))
    features, thresholds = [], []
    for tree in _trees(document["learner"]["gradient_booster"]):
        inner = np.asarray(tree["left_children"]) >= 0
        features.append(np.asarray(tree["split_indices"], dtype=np.int64)[inner])
        thresholds.append(np.asarray(tree["split_conditions"], dtype=np.float64)[inner])
    return (np.concatenate(features), np.concatenate(thresholds)) if features else _NONE


def _trees(booster: dict[str, Any]) -> list[dict[str, Any]]:
    """The trees of a `gbtree`, or of the `gbtree` inside a `dart`; a linear booster has none."""
    inner = booster.get("gbtree", booster)
    return list(inner.get("model", {}).get("trees", []))


def _lightgbm(booster: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    features: list[float] = []
    thresholds: list[float] = []
    for line in booster.model_to_string().splitlines():
        key, _, rest = line.partition("=")
        if key == "split_feature":
            features += [float(word) for word in rest.split()]
        elif key == "threshold":
            thresholds += [float(word) for word in rest.split()]
        elif line == "end of trees":
            break
    return np.asarray(features, dtype=np.int64), np.asarray(thresholds, dtype=np.float64)
