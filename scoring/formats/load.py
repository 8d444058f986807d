"""Loads the original of a model in its own framework, under the operator's trust."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from scoring.errors import UntrustedModelError
from scoring.formats.base import Detection, LoadedModel, Trust

_MODULES = {
    "onnx": "scoring.formats.onnx",
    "sklearn-joblib": "scoring.formats.sklearn",
    "sklearn-pickle": "scoring.formats.sklearn",
    "sklearn-skops": "scoring.formats.sklearn",
    "xgboost": "scoring.formats.xgboost",
    "lightgbm": "scoring.formats.lightgbm",
    "torch-export": "scoring.formats.torch",
    "torchscript": "scoring.formats.torch",
    "keras": "scoring.formats.keras",
    "circuit": "scoring.formats.circuits",
}

Load = Callable[[Detection, Trust, Any], LoadedModel]


def load_original(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:
    """Loads the original of a model and finds out what it takes and answers.

    Args:
        detection: What `detect` said of the file.
        trust: What the operator allows. The file itself can allow nothing.
        sample: Some rows of input (DataFrame, array, list, dict of columns), where given: types and
            shapes that the model does not tell are taken from it.

    Returns:
        The loaded model with its schema and the predictor of its native runtime.

    Raises:
        UntrustedModelError: Loading it could run code that the operator has not trusted.
        MissingDependencyError: A package is not installed, or has the wrong version.
        CorruptModelError: The content is broken.
        UnsupportedModelError: It is no model that can be served.
    """
    if detection.runs_code and not trust.pickle:
        raise UntrustedModelError(
            f"{detection.path} ({detection.format}) is a pickle: loading it can run any code.",
            hint="If you trust where it comes from, add --trust-pickle. "
            "A skops or ONNX file needs no such trust.",
            where=str(detection.path),
        )
    load = cast("Load", import_module(_MODULES[detection.format]).load)
    return load(detection, trust, sample)
