"""Loads LightGBM's own text files."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from scoring.formats import probing
from scoring.formats.base import Detection, LoadedModel, Trust
from scoring.formats.canary import require_survivable
from scoring.runtimes import boosters
from scoring.runtimes.dependencies import pinned, quiet, require
from scoring.runtimes.lightgbm import LightgbmPredictor, categories, open_booster, task
from scoring.schema import ModelSchema


def load(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:  # noqa: ARG001
    """Loads a Booster; its objective decides what it answers.

    Raises:
        CorruptModelError: The text is damaged.
        MissingDependencyError: LightGBM is not installed.
    """
    require("lightgbm", "A LightGBM model")
    require_survivable(detection)
    model, schema = describe(detection)
    modules = ["numpy", "lightgbm", *(["pandas"] if schema.layout == "table" else [])]
    return LoadedModel(
        detection=detection,
        model=model,
        schema=schema,
        predictor=LightgbmPredictor(model, schema),
        requirements=pinned(*modules),
    )


def describe(detection: Detection) -> tuple[Any, ModelSchema]:
    """The Booster in a file, and its schema.

    Raises:
        ModelFileError: The file cannot be loaded, or the Booster fails.
    """
    with quiet():
        model = open_booster(detection.path)
        return model, _schema(model)


def _schema(model: Any) -> ModelSchema:
    names = tuple(model.feature_name())
    known = categories(model)
    draft = ModelSchema(
        inputs=boosters.input_specs(names, len(names), "float64", known),
        outputs=(),
        layout="table" if known else "tensors",
        features=() if known or _made_up(names) else names,
    )
    texts = {name: values[0] for name, values in known.items()}
    batch = probing.zeros(draft.inputs, rows=2, texts=texts)
    predictor = LightgbmPredictor(model, draft)
    raw = predictor.raw(batch)
    kind = task(model)
    return msgspec.structs.replace(
        draft,
        inputs=probing.with_missing(draft.inputs, batch, lambda rows: {"raw": predictor.raw(rows)}),
        outputs=boosters.output_specs(kind, "float64", raw.shape),
        classes={"binary": (0, 1), "multiclass": tuple(range(raw.shape[-1]))}.get(kind, ()),
    )


def _made_up(names: tuple[str, ...]) -> bool:
    """Whether LightGBM made the names itself, for a model that was fitted on an array."""
    return all(re.fullmatch(r"Column_\d+", name) for name in names)
