"""Loads Keras models."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from scoring.errors import ScoringFailedError, UnsupportedModelError
from scoring.formats import probing
from scoring.formats.base import Detection, LoadedModel, Trust
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.runtimes.dependencies import pinned, quiet
from scoring.runtimes.keras import KerasPredictor, backend, input_names, open_model
from scoring.runtimes.leaves import leaves
from scoring.schema import DType, ModelSchema, TensorSpec

_GENERATED = re.compile(r"(?:keras_tensor|input_layer|input)(?:_\d+)?")
_SIZES = (1, 8, 32, 64, 224)


def load(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:  # noqa: ARG001
    """Loads a `.keras` file.

    Raises:
        CorruptModelError: The file is damaged.
        UnsupportedModelError: It holds code, is not built, or takes what requests cannot carry.
        MissingDependencyError: Keras or every backend is missing.
    """
    model = open_model(detection.path)
    with quiet():
        schema = _schema(model, detection)
        predictor = KerasPredictor(model, schema)
    return LoadedModel(
        detection=detection,
        model=model,
        schema=schema,
        predictor=predictor,
        requirements=pinned("numpy", "keras", backend()),
    )


def _schema(model: Any, detection: Detection) -> ModelSchema:
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise UnsupportedModelError(
            f"{detection.path} was saved before it was built: it has neither inputs nor weights.",
            hint="Call the model on some data, or give it an Input layer, before saving it.",
            where=str(detection.path),
        )
    names = input_names(model)
    if len(names) == 1 and _GENERATED.fullmatch(names[0]):
        names = ["X"]
    inputs = tuple(
        TensorSpec(name, _dtype(tensor, name, detection), tuple(tensor.shape))
        for name, tensor in zip(names, tensors, strict=True)
    )
    return _asked(model, ModelSchema(inputs=inputs, outputs=()), detection)


def _dtype(tensor: Any, name: str, detection: Detection) -> DType:
    found = str(tensor.dtype)
    for known in NUMPY_DTYPES:
        if known == found and known != "string":
            return known  # type: ignore[return-value]
    raise UnsupportedModelError(
        f"{detection.path} takes {found} as {name!r}, which this backend cannot.",
        hint="Give the model numbers, or serve it with a script.",
        where=name,
    )


def _asked(model: Any, draft: ModelSchema, detection: Detection) -> ModelSchema:
    """The outputs, from the answer to zeros."""
    predictor = KerasPredictor(model, draft)
    failure: Exception | None = None
    for size in _SIZES:
        batch = probing.zeros(draft.inputs, rows=3, size=size)
        try:
            answer = dict(leaves(predictor.raw(batch)))
        except Exception as error:  # noqa: BLE001 - a backend may fail in any way
            failure = failure or error
            continue
        free = draft.inputs[0].shape[:1] == (None,)
        schema = ModelSchema(
            inputs=draft.inputs,
            outputs=tuple(_output(n, np.asarray(v), draft, free=free) for n, v in answer.items()),
        )
        asked = KerasPredictor(model, schema)
        inputs = probing.with_missing(draft.inputs, batch, asked.predict)
        return ModelSchema(inputs=inputs, outputs=schema.outputs)
    raise UnsupportedModelError(
        f"{detection.path} fails on zeros: {' '.join(str(failure).split())[:300]}",
        hint="Serve it with a script.",
        where=str(detection.path),
    ) from failure


def _output(name: str, value: Any, draft: ModelSchema, *, free: bool) -> TensorSpec:
    dtype = str(value.dtype)
    if dtype not in NUMPY_DTYPES:
        raise ScoringFailedError(f"The output {name!r} has the type {dtype}.")
    fixed = all(None not in spec.shape[1:] for spec in draft.inputs)
    rest = value.shape[1:] if fixed else tuple(None for _ in value.shape[1:])
    return TensorSpec(name, dtype, ((None,) if free else value.shape[:1]) + tuple(rest))  # type: ignore[arg-type]
