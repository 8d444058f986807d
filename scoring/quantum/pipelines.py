"""A fitted estimator, or a pipeline that ends in one, as a model that can be served alone.

The scalers before the classifier become steps of the circuit's encoding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scoring.errors import UnsupportedModelError
from scoring.quantum.circuit import Circuit, Model, OneVersusRest
from scoring.quantum.features import Encoding, Scale


def is_trained(estimator: object) -> bool:
    """Whether `model_of` may take it: a classifier of circuits, or a pipeline that ends in one."""
    last = _steps(estimator)[-1]
    return type(last).__name__ == "SequentialClassifier" and hasattr(last, "model_")


def model_of(estimator: object) -> Model:
    """What a fitted classifier learned, with the scalers of its pipeline.

    Args:
        estimator: A fitted `SequentialClassifier`, or a pipeline of scalers that ends in one.

    Raises:
        UnsupportedModelError: It is not fitted, or a step of the pipeline is no scaler.
    """
    *before, last = _steps(estimator)
    model: Model | None = getattr(last, "model_", None)
    if not isinstance(model, Circuit | OneVersusRest):
        raise UnsupportedModelError(
            f"{type(last).__name__} is no classifier of circuits that was fitted.",
            hint="Call fit first.",
        )
    scales = tuple(scale for step in before for scale in [_scale(step)] if scale is not None)
    if not scales:
        return model
    if isinstance(model, OneVersusRest):
        inner = tuple(_scaled(circuit, scales) for circuit in model.circuits)
        return replace(model, circuits=inner)
    return _scaled(model, scales)


def _steps(estimator: Any) -> list[Any]:
    steps = getattr(estimator, "steps", None)
    return [step for _, step in steps] if steps else [estimator]


def _scaled(circuit: Circuit, scales: tuple[Scale, ...]) -> Circuit:
    encoding = Encoding(circuit.encoding.features, (*scales, *circuit.encoding.steps))
    return replace(circuit, encoding=encoding)


def _scale(step: Any) -> Scale | None:
    """The step as `(x - offset) * factor`; None where it does nothing."""
    name = type(step).__name__
    if step is None or step == "passthrough":
        return None
    width = int(getattr(step, "n_features_in_", 0))
    if name in ("StandardScaler", "RobustScaler", "MaxAbsScaler"):
        centre = getattr(step, "center_", None)
        if name == "StandardScaler" and step.with_mean:  # else it has a mean, and leaves it
            centre = step.mean_
        scale = getattr(step, "scale_", None)
        offset = np.zeros(width) if centre is None else np.asarray(centre)
        factor = np.ones(width) if scale is None else 1 / np.asarray(scale)
        return _as_scale(offset, factor)
    if name == "MinMaxScaler" and not step.clip:
        factor = np.asarray(step.scale_)
        return _as_scale(-np.asarray(step.min_) / factor, factor)
    raise UnsupportedModelError(
        f"The pipeline's step {name} cannot be made part of a circuit.",
        hint="Use StandardScaler, RobustScaler, MaxAbsScaler or MinMaxScaler, or the encoding of "
        "the classifier.",
    )


def _as_scale(offset: Any, factor: Any) -> Scale:
    return Scale(tuple(map(float, offset)), tuple(map(float, factor)))
