"""XGBoost models in their own library, from the files that XGBoost writes."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import (
    CorruptModelError,
    InputError,
    ModelNotFoundError,
    ScoringFailedError,
)
from scoring.runtimes import boosters
from scoring.runtimes.dependencies import quiet, require

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from scoring.bundle import Bundle
    from scoring.runtimes.base import Arrays
    from scoring.schema import ModelSchema

_WHAT = "An XGBoost model"


class XgboostPredictor:
    """Answers with a Booster; in-place prediction is safe on several threads."""

    thread_safe = True

    def __init__(self, model: Any, schema: ModelSchema) -> None:
        self.schema = schema
        self.model = model
        self._task = task(model)
        self._categories = categories(model)
        self._in_place = booster_kind(model) != "gblinear" and not model.feature_types
        self._xgboost = require("xgboost", _WHAT)

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """See `scoring.runtimes.base.Predictor`."""
        try:
            return boosters.answer(self._task, self.raw(inputs))
        except InputError:
            raise
        except Exception as error:
            raise ScoringFailedError(f"The model failed: {first_line(error)}") from error

    def raw(self, inputs: Arrays) -> NDArray[Any]:
        """The booster's own answer, before labels are made of it."""
        if self._in_place:
            data = inputs[boosters.MATRIX]
            found = self.model.inplace_predict(data, validate_features=False)
        else:
            found = self.model.predict(self._matrix(inputs), validate_features=False)
        return np.asarray(found)

    def _matrix(self, inputs: Arrays) -> Any:
        if self._categories:
            data = boosters.frame(inputs, self.schema, self._categories)
            return self._xgboost.DMatrix(data, enable_categorical=True, nthread=1)
        types = self.model.feature_types
        return self._xgboost.DMatrix(
            inputs[boosters.MATRIX], feature_types=types, enable_categorical=bool(types), nthread=1
        )


def configuration(model: Any) -> dict[str, Any]:
    """The `learner` part of the booster's configuration."""
    found: dict[str, Any] = json.loads(model.save_config())["learner"]
    return found


def booster_kind(model: Any) -> str:
    """`gbtree`, `gblinear` or `dart`."""
    return str(configuration(model)["gradient_booster"]["name"])


def task(model: Any) -> boosters.Task:
    """What the booster's answer means, by its objective."""
    objective = str(configuration(model)["objective"]["name"])
    known: dict[str, boosters.Task] = {
        "binary:logistic": "binary",
        "binary:logitraw": "binary-labels",
        "binary:hinge": "binary-labels",
        "multi:softprob": "multiclass",
        "multi:softmax": "multiclass-labels",
    }
    return known.get(objective, "values")


def categories(model: Any) -> dict[str, list[str]]:
    """Column name to the strings that the model knows, for the categories that it stores."""
    if "c" not in (model.feature_types or []) or not model.feature_names:
        return {}
    document = json.loads(bytes(model.save_raw("json")))
    tree_model = document["learner"]["gradient_booster"]
    stored = tree_model.get("model", tree_model.get("gbtree", {}).get("model", {})).get("cats", {})
    found = zip(model.feature_names, stored.get("enc", []), strict=False)
    return {name: _strings(entry) for name, entry in found if _strings(entry)}


def _strings(entry: dict[str, Any]) -> list[str]:
    """The categories of one column, which XGBoost stores as one run of UTF-8 with offsets."""
    offsets, values = entry.get("offsets"), entry.get("values", [])
    if not offsets:
        return []
    raw = bytes(value & 0xFF for value in values)
    return [raw[start:end].decode("utf-8", "replace") for start, end in pairwise(offsets)]


def open_booster(path: Path) -> Any:
    """Reads a booster; one with early stopping is cut to its best iteration.

    Raises:
        ModelNotFoundError: There is no such file.
        CorruptModelError: XGBoost cannot read it.
    """
    xgboost = require("xgboost", _WHAT)
    try:
        # By the file's name XGBoost would take its content for another form than it is.
        content = bytearray(path.read_bytes())
    except OSError as error:
        raise ModelNotFoundError(f"{path} cannot be read: {error.strerror}.") from error
    model = xgboost.Booster({"nthread": 1, "verbosity": 0})
    try:
        with quiet():
            model.load_model(content)
            return _best(model)
    except Exception as error:
        raise CorruptModelError(
            f"{path} cannot be loaded by XGBoost {xgboost.__version__}: {first_line(error)}",
            hint="Save the model again: booster.save_model('model.ubj').",
            where=str(path),
        ) from error


def _best(model: Any) -> Any:
    best = model.attr("best_iteration")
    if best is None or not best.isdigit() or booster_kind(model) == "gblinear":
        return model
    if int(best) + 1 >= model.num_boosted_rounds():
        return model
    names, types = model.feature_names, model.feature_types
    cut = model[: int(best) + 1]
    cut.feature_names, cut.feature_types = names, types
    cut.set_param({"nthread": 1, "verbosity": 0})
    return cut


def first_line(error: BaseException) -> str:
    """An error of the library without its stack trace and source paths."""
    line = str(error).strip().split("\n", 1)[0]
    return line.split(": ", 1)[-1][:300] if line.startswith("[") else line[:300]


def load(path: Path, bundle: Bundle) -> XgboostPredictor:
    """Loads a booster of a package.

    Raises:
        ModelFileError: The file is missing or broken, or XGBoost is not installed.
    """
    if bundle.schema is None:
        raise CorruptModelError(f"The package of {path} has no schema.", where=str(path))
    return XgboostPredictor(open_booster(path), bundle.schema)
