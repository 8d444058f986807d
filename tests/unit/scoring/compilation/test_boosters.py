"""Native XGBoost and LightGBM files: every objective, compared with the booster on new rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from scoring.compilation import Compilation
from scoring.compilation.compare import compare
from scoring.compilation.compile import Compiled, compile_model
from scoring.formats.base import LoadedModel, Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.runtimes.onnx import OnnxPredictor

IRIS, SPECIES = load_iris(return_X_y=True)
CANCER, MALIGN = load_breast_cancer(return_X_y=True)
DIABETES, PROGRESS = load_diabetes(return_X_y=True)
DATA: dict[str, tuple[Any, Any]] = {
    "two": (CANCER, MALIGN),
    "three": (IRIS, SPECIES),
    "number": (DIABETES, PROGRESS),
    "rank": (IRIS, SPECIES),
}


def _load(path: Path) -> LoadedModel:
    return load_original(detect(path), Trust())


def _agreed(loaded: LoadedModel, rows: Any) -> tuple[Compilation, Compiled]:
    """Compiles, and compares on rows of the real data, with a hole in each."""
    outcome, compiled = compile_model(loaded)
    assert compiled is not None, outcome.reason
    session = onnxruntime.InferenceSession(compiled.model, providers=["CPUExecutionProvider"])
    predictor = OnnxPredictor(session, compiled.schema)
    (spec,) = loaded.schema.inputs
    (given,) = compiled.schema.inputs
    rows = rows[1::2].astype(NUMPY_DTYPES[spec.dtype])
    if spec.missing:
        rows[np.arange(len(rows)), np.arange(len(rows)) % rows.shape[1]] = np.nan
    reference = loaded.predictor.predict({spec.name: rows})
    answers = predictor.predict({spec.name: rows.astype(NUMPY_DTYPES[given.dtype])})
    agreement = compare(loaded.schema, reference, answers)
    assert agreement.within(1e-5), agreement
    return outcome, compiled


@pytest.mark.parametrize(
    ("objective", "data"),
    [
        ("binary:logistic", "two"),
        ("binary:logitraw", "two"),
        ("binary:hinge", "two"),
        ("reg:logistic", "two"),
        ("multi:softprob", "three"),
        ("multi:softmax", "three"),
        ("reg:squarederror", "number"),
        ("reg:absoluteerror", "number"),
        ("reg:pseudohubererror", "number"),
        ("reg:gamma", "number"),
        ("reg:tweedie", "number"),
        ("count:poisson", "number"),
        ("rank:ndcg", "rank"),
        ("survival:cox", "number"),
    ],
)
def test_xgboost_objectives(objective: str, data: str, tmp_path: Path) -> None:
    rows, targets = DATA[data]
    matrix = xgboost.DMatrix(rows[::2], targets[::2])
    parameters: dict[str, Any] = {"objective": objective, "max_depth": 3, "nthread": 1}
    if data == "three":
        parameters["num_class"] = 3
    if data == "rank":
        matrix.set_group([25, 25, 25])
    booster = xgboost.train(parameters, matrix, 6)
    booster.save_model(tmp_path / "model.ubj")
    outcome, _ = _agreed(_load(tmp_path / "model.ubj"), rows)
    assert outcome.served


@pytest.mark.parametrize(
    ("objective", "data"),
    [
        ("binary", "two"),
        ("cross_entropy", "two"),
        ("cross_entropy_lambda", "two"),
        ("multiclass", "three"),
        ("multiclassova", "three"),
        ("regression", "number"),
        ("regression_l1", "number"),
        ("huber", "number"),
        ("quantile", "number"),
        ("poisson", "number"),
        ("gamma", "number"),
        ("tweedie", "number"),
        ("lambdarank", "rank"),
    ],
)
def test_lightgbm_objectives(objective: str, data: str, tmp_path: Path) -> None:
    rows, targets = DATA[data]
    parameters: dict[str, Any] = {"objective": objective, "verbose": -1, "num_threads": 1}
    if data == "three":
        parameters["num_class"] = 3
    group = [25, 25, 25] if data == "rank" else None
    dataset = lightgbm.Dataset(rows[::2], targets[::2], group=group)
    lightgbm.train(parameters, dataset, 6).save_model(tmp_path / "model.txt")
    outcome, _ = _agreed(_load(tmp_path / "model.txt"), rows)
    assert outcome.served


@pytest.mark.parametrize(
    "parameters",
    [
        {"booster": "dart", "rate_drop": 0.5},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"base_score": 0.3},
        {"tree_method": "exact"},
    ],
    ids=str,
)
def test_other_boosters_of_xgboost(parameters: dict[str, Any], tmp_path: Path) -> None:
    matrix = xgboost.DMatrix(CANCER[::2], MALIGN[::2])
    common = {"objective": "binary:logistic", "nthread": 1, "seed": 1}
    xgboost.train(common | parameters, matrix, 6).save_model(tmp_path / "model.json")
    _agreed(_load(tmp_path / "model.json"), CANCER)


def test_names_of_features_are_kept(tmp_path: Path) -> None:
    frame = pd.DataFrame(IRIS, columns=["a", "b", "c c", "d"])
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(frame, SPECIES), 3)
    booster.save_model(tmp_path / "model.ubj")
    loaded = _load(tmp_path / "model.ubj")
    _, compiled = _agreed(loaded, IRIS)
    assert compiled.schema.features == ("a", "b", "c c", "d")
    assert loaded.model.feature_names == ["a", "b", "c c", "d"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
        {"boosting": "dart"},
        {"reg_sqrt": True},
        {"use_missing": False},
    ],
    ids=str,
)
def test_other_boosters_of_lightgbm(parameters: dict[str, Any], tmp_path: Path) -> None:
    common = {"objective": "regression", "verbose": -1, "num_threads": 1}
    dataset = lightgbm.Dataset(DIABETES[::2], PROGRESS[::2])
    lightgbm.train(common | parameters, dataset, 6).save_model(tmp_path / "model.txt")
    _agreed(_load(tmp_path / "model.txt"), DIABETES)


def test_early_stopping_uses_the_best_iteration(tmp_path: Path) -> None:
    matrix, held = (xgboost.DMatrix(CANCER[i::2], MALIGN[i::2]) for i in (0, 1))
    booster = xgboost.train(
        {"objective": "binary:logistic", "eta": 1.0, "nthread": 1},
        matrix,
        60,
        evals=[(held, "held")],
        early_stopping_rounds=3,
        verbose_eval=False,
    )
    assert booster.best_iteration + 1 < booster.num_boosted_rounds()
    booster.save_model(tmp_path / "model.ubj")
    _agreed(_load(tmp_path / "model.ubj"), CANCER)


def test_a_tree_without_splits(tmp_path: Path) -> None:
    dataset = lightgbm.Dataset(np.zeros((40, 2)), np.arange(40.0), params={"verbose": -1})
    parameters = {"objective": "regression", "verbose": -1, "min_data_in_leaf": 30}
    lightgbm.train(parameters, dataset, 2).save_model(tmp_path / "model.txt")
    _agreed(_load(tmp_path / "model.txt"), np.random.default_rng(0).random((10, 2)))


def test_zero_as_missing_is_left_to_the_original(tmp_path: Path) -> None:
    rows = np.where(np.random.default_rng(0).random(IRIS.shape) < 0.3, 0.0, IRIS)
    parameters = {"objective": "regression", "verbose": -1, "zero_as_missing": True}
    dataset = lightgbm.Dataset(rows, SPECIES)
    lightgbm.train(parameters, dataset, 8).save_model(tmp_path / "model.txt")
    outcome, compiled = compile_model(_load(tmp_path / "model.txt"))
    assert compiled is None or outcome.max_difference <= 1e-5
    assert outcome.reason.endswith(".")


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_categories_of_strings_are_left_to_the_original(library: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "kind": pd.Categorical(np.array(["x", "y", "z"])[SPECIES]),
            "width": IRIS[:, 1],
        }
    )
    path = tmp_path / "model"
    if library == "xgboost":
        matrix = xgboost.DMatrix(frame, SPECIES, enable_categorical=True)
        xgboost.train({"nthread": 1}, matrix, 3).save_model(path.with_suffix(".json"))
        path = path.with_suffix(".json")
    else:
        dataset = lightgbm.Dataset(frame, SPECIES, params={"verbose": -1})
        lightgbm.train({"verbose": -1}, dataset, 3).save_model(path)
    outcome, compiled = compile_model(_load(path))
    assert compiled is None
    assert outcome.reason == "Columns of categories are encoded by the model's own library only."
