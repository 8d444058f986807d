"""Loads XGBoost's own files."""

from __future__ import annotations

from typing import Any

import msgspec

from scoring.errors import UnsupportedModelError
from scoring.formats import probing
from scoring.formats.base import Detection, LoadedModel, Trust
from scoring.formats.canary import require_survivable
from scoring.runtimes import boosters
from scoring.runtimes.dependencies import pinned, quiet, require
from scoring.runtimes.xgboost import XgboostPredictor, categories, first_line, open_booster, task
from scoring.schema import ModelSchema


def load(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:  # noqa: ARG001
    """Loads a Booster; its objective decides what it answers.

    Raises:
        CorruptModelError: XGBoost cannot read the file.
        UnsupportedModelError: It fails on a row of zeros.
        MissingDependencyError: XGBoost is not installed.
    """
    require("xgboost", "An XGBoost model")
    require_survivable(detection)
    model, schema = describe(detection)
    modules = ["numpy", "xgboost", *(["pandas"] if schema.layout == "table" else [])]
    return LoadedModel(
        detection=detection,
        model=model,
        schema=schema,
        predictor=XgboostPredictor(model, schema),
        requirements=pinned(*modules),
    )


def describe(detection: Detection) -> tuple[Any, ModelSchema]:
    """The Booster in a file, and its schema.

    Raises:
        ModelFileError: The file cannot be loaded, or the Booster fails.
    """
    with quiet():
        model = open_booster(detection.path)
        return model, _schema(model, detection)


def _schema(model: Any, detection: Detection) -> ModelSchema:
    names = tuple(model.feature_names or ())
    known = categories(model)
    draft = ModelSchema(
        inputs=boosters.input_specs(names, model.num_features(), "float32", known),
        outputs=(),
        layout="table" if known else "tensors",
        features=() if known else names,
    )
    texts = {name: values[0] for name, values in known.items()}
    batch = probing.zeros(draft.inputs, rows=2, texts=texts)
    predictor = XgboostPredictor(model, draft)
    try:
        raw = predictor.raw(batch)
    except Exception as error:
        raise UnsupportedModelError(
            f"{detection.path} fails on a row of zeros: {first_line(error)}",
            hint="Save it again with the XGBoost that is installed.",
            where=str(detection.path),
        ) from error
    kind = task(model)
    return msgspec.structs.replace(
        draft,
        inputs=probing.with_missing(draft.inputs, batch, lambda rows: {"raw": predictor.raw(rows)}),
        outputs=boosters.output_specs(kind, "float32", raw.shape),
        classes=_classes(model, kind, raw.shape),
    )


def _classes(model: Any, kind: boosters.Task, shape: tuple[int, ...]) -> tuple[int, ...]:
    if kind == "multiclass":
        return tuple(range(shape[1]))
    if kind == "multiclass-labels":
        from scoring.runtimes.xgboost import configuration  # noqa: PLC0415

        return tuple(range(int(configuration(model)["learner_model_param"]["num_class"])))
    return (0, 1) if kind.startswith("binary") and len(shape) == 1 else ()
