"""XGBoost and LightGBM files: their objectives decide what an answer means."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scoring.errors import CorruptModelError, ModelFileError, WrongTypeError
from scoring.formats import canary
from scoring.formats.base import LoadedModel, Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.schema import TensorSpec

xgb = pytest.importorskip("xgboost")
lgb = pytest.importorskip("lightgbm")

rng = np.random.default_rng(3)
X = rng.normal(size=(80, 4)).astype(np.float32)
Y3 = rng.integers(0, 3, 80)
Y2 = (X[:, 0] > 0).astype(int)
CATEGORIES = pd.DataFrame(
    {"colour": pd.Categorical(["red", "green", "blue"] * 20), "n": np.arange(60.0)}
)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], LoadedModel]:
    """Saves and loads a booster under a name that says nothing of its form."""
    monkeypatch.setattr(canary, "require_survivable", lambda detection: None)
    for module in ("xgboost", "lightgbm"):
        monkeypatch.setattr(f"scoring.formats.{module}.require_survivable", lambda detection: None)

    def save_and_load(booster: Any, suffix: str) -> LoadedModel:
        booster.save_model(tmp_path / f"model.{suffix}")
        path = tmp_path / "model"
        shutil.move(tmp_path / f"model.{suffix}", path)
        return load_original(detect(path), Trust())

    return save_and_load


def xgboost(objective: str, labels: Any, rounds: int = 3, **more: Any) -> Any:
    params = {"objective": objective, "verbosity": 0, "nthread": 1, **more}
    return xgb.train(params, xgb.DMatrix(X, labels), rounds)


def lightgbm(objective: str, labels: Any, **more: Any) -> Any:
    params = {"objective": objective, "verbosity": -1, "num_threads": 1, **more}
    return lgb.train(params, lgb.Dataset(X.astype(float), labels), 3)


def shapes(loaded: LoadedModel) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    return {spec.name: (spec.dtype, spec.shape) for spec in loaded.schema.outputs}


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_xgboost_classes(load: Any, suffix: str) -> None:
    booster = xgboost("multi:softprob", Y3, num_class=3)
    loaded = load(booster, suffix)
    assert loaded.schema.inputs == (TensorSpec("X", "float32", (None, 4), missing=True),)
    assert shapes(loaded) == {
        "predictions": ("int64", (None,)),
        "probabilities": ("float32", (None, 3)),
    }
    assert loaded.schema.classes == (0, 1, 2)
    answer = loaded.predictor.predict({"X": X})
    expected = booster.predict(xgb.DMatrix(X))
    np.testing.assert_array_equal(answer["probabilities"], expected)
    np.testing.assert_array_equal(answer["predictions"], expected.argmax(axis=1))
    assert any(name.startswith(("xgboost==", "xgboost-cpu==")) for name in loaded.requirements)


@pytest.mark.parametrize(
    ("objective", "labels", "more", "names", "classes"),
    [
        ("binary:logistic", Y2, {}, ["predictions", "probabilities"], (0, 1)),
        ("binary:logitraw", Y2, {}, ["predictions"], (0, 1)),
        ("binary:hinge", Y2, {}, ["predictions"], (0, 1)),
        ("multi:softmax", Y3, {"num_class": 3}, ["predictions"], (0, 1, 2)),
        ("reg:squarederror", X[:, 0], {}, ["predictions"], ()),
        ("reg:squarederror", X[:, 0], {"booster": "gblinear"}, ["predictions"], ()),
        ("reg:squarederror", X[:, 0], {"booster": "dart"}, ["predictions"], ()),
        ("reg:squarederror", X[:, :2], {}, ["predictions"], ()),
        ("count:poisson", Y3, {}, ["predictions"], ()),
        ("rank:pairwise", Y3, {}, ["predictions"], ()),
    ],
)
def test_xgboost_objectives(
    load: Any, objective: str, labels: Any, more: Any, names: list[str], classes: Any
) -> None:
    booster = xgboost(objective, labels, **more)
    loaded = load(booster, "ubj")
    assert list(shapes(loaded)) == names
    assert loaded.schema.classes == classes
    answer = loaded.predictor.predict({"X": X})
    raw = booster.predict(xgb.DMatrix(X))
    if classes:
        assert answer["predictions"].dtype == np.int64
        assert set(answer["predictions"].tolist()) <= set(classes)
        if "probabilities" in names:
            np.testing.assert_array_equal(answer["probabilities"][:, 1], raw)
            np.testing.assert_array_equal(answer["predictions"], raw > 0.5)
    else:
        np.testing.assert_allclose(answer["predictions"], raw, rtol=1e-6)
        assert shapes(loaded)["predictions"] == ("float32", (None, *raw.shape[1:]))


def test_xgboost_stops_at_its_best_iteration(load: Any) -> None:
    train, test = xgb.DMatrix(X[:40], Y2[:40]), xgb.DMatrix(X[40:], Y3[40:] % 2)
    params = {"objective": "binary:logistic", "verbosity": 0, "nthread": 1}
    booster = xgb.train(
        params, train, 30, evals=[(test, "t")], early_stopping_rounds=3, verbose_eval=False
    )
    best = booster.best_iteration + 1
    assert best < booster.num_boosted_rounds()
    loaded = load(booster, "ubj")
    expected = booster.predict(xgb.DMatrix(X), iteration_range=(0, best))
    np.testing.assert_array_equal(
        loaded.predictor.predict({"X": X})["probabilities"][:, 1], expected
    )


def test_xgboost_feature_names(load: Any) -> None:
    data = xgb.DMatrix(X, Y2, feature_names=["a", "b", "c", "d"])
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 2)
    loaded = load(booster, "json")
    assert loaded.schema.features == ("a", "b", "c", "d")
    assert loaded.predictor.predict({"X": X})["predictions"].shape == (80,)


def test_xgboost_categories_are_strings(load: Any) -> None:
    labels = [1, 0, 1] * 20
    data = xgb.DMatrix(CATEGORIES, labels, enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 3)
    loaded = load(booster, "ubj")
    assert loaded.schema.layout == "table"
    assert [(s.name, s.dtype) for s in loaded.schema.inputs] == [
        ("colour", "string"),
        ("n", "float32"),
    ]
    inputs = {
        "colour": CATEGORIES[["colour"]].to_numpy(dtype=object),
        "n": CATEGORIES[["n"]].to_numpy(dtype=np.float32),
    }
    answer = loaded.predictor.predict(inputs)
    np.testing.assert_allclose(answer["probabilities"][:, 1], booster.predict(data), rtol=1e-6)
    inputs["colour"] = np.full((60, 1), "mauve", dtype=object)
    with pytest.raises(WrongTypeError, match="'mauve' is no category of 'colour'") as caught:
        loaded.predictor.predict(inputs)
    assert "'red'" in caught.value.hint


@pytest.mark.parametrize(
    ("objective", "labels", "more", "expected", "classes"),
    [
        (
            "binary",
            Y2,
            {},
            {"predictions": ("int64", (None,)), "probabilities": ("float64", (None, 2))},
            (0, 1),
        ),
        (
            "multiclass",
            Y3,
            {"num_class": 3},
            {"predictions": ("int64", (None,)), "probabilities": ("float64", (None, 3))},
            (0, 1, 2),
        ),
        ("regression", X[:, 0].copy(), {}, {"predictions": ("float64", (None,))}, ()),
        ("poisson", Y3, {}, {"predictions": ("float64", (None,))}, ()),
    ],
)
def test_lightgbm_objectives(
    load: Any, objective: str, labels: Any, more: Any, expected: Any, classes: Any
) -> None:
    booster = lightgbm(objective, labels, **more)
    loaded = load(booster, "txt")
    assert loaded.schema.inputs == (TensorSpec("X", "float64", (None, 4), missing=True),)
    assert shapes(loaded) == expected
    assert loaded.schema.classes == classes
    assert loaded.schema.features == ()
    answer = loaded.predictor.predict({"X": X.astype(float)})
    raw = booster.predict(X.astype(float))
    last = list(answer.values())[-1]
    np.testing.assert_allclose(last[:, 1] if objective == "binary" else last, raw, rtol=1e-12)


def test_lightgbm_categories_are_strings(load: Any) -> None:
    params = {"objective": "binary", "verbosity": -1, "min_data_in_leaf": 2, "num_threads": 1}
    booster = lgb.train(
        params | {"min_data_per_group": 1}, lgb.Dataset(CATEGORIES, [1, 0, 1] * 20), 3
    )
    loaded = load(booster, "txt")
    assert loaded.schema.layout == "table"
    assert [s.dtype for s in loaded.schema.inputs] == ["string", "float64"]
    inputs = {
        "colour": CATEGORIES[["colour"]].to_numpy(dtype=object),
        "n": CATEGORIES[["n"]].to_numpy(),
    }
    answer = loaded.predictor.predict(inputs)
    np.testing.assert_allclose(
        answer["probabilities"][:, 1], booster.predict(CATEGORIES), rtol=1e-12
    )


def test_damaged_lightgbm_is_told_before_lightgbm_sees_it(load: Any, tmp_path: Path) -> None:
    text = lightgbm("regression", X[:, 0].copy()).model_to_string()
    tree = text.index("left_child=") + len("left_child=")
    for broken in (
        text[: text.index("Tree=2")] + "end of trees\n",
        text.replace("leaf_value=", "leaf_value=x ", 1),
        text[:tree] + "9" + text[tree + 1 :],
        text.replace("max_feature_idx=3", "max_feature_idx=0"),
        text.replace("split_feature=", "split_fear=", 1),
    ):
        path = tmp_path / "model.txt"
        path.write_text(broken)
        with pytest.raises(CorruptModelError, match="damaged LightGBM"):
            load_original(detect(path), Trust())


def test_a_booster_that_crashes_its_library_is_corrupt(tmp_path: Path) -> None:
    """A length in the middle of a UBJSON file that XGBoost believes: it would end this process."""
    path = tmp_path / "model.ubj"
    xgboost("reg:squarederror", X[:, 0]).save_model(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"left_children[$l#L") + len(b"left_children[$l#L")
    content[at + 1 : at + 8] = b"\x7f" * 7
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"damaged|cannot be loaded"):
        load_original(detect(path), Trust())


def test_a_damaged_xgboost_file(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    xgboost("reg:squarederror", X[:, 0]).save_model(path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2] + "}}")
    with pytest.raises(CorruptModelError, match="cannot be loaded by XGBoost") as caught:
        load_original(detect(path), Trust())
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_categories_of_their_scikit_learn_estimators(tmp_path: Path, library: str) -> None:
    import joblib

    model = (
        xgb.XGBClassifier(n_estimators=3, enable_categorical=True, n_jobs=1)
        if library == "xgboost"
        else lgb.LGBMClassifier(n_estimators=3, verbosity=-1, min_child_samples=2, n_jobs=1)
    )
    model.fit(CATEGORIES, [1, 0, 1] * 20)
    joblib.dump(model, tmp_path / "model")
    loaded = load_original(detect(tmp_path / "model"), Trust(pickle=True))
    assert [(s.name, s.dtype) for s in loaded.schema.inputs] == [
        ("colour", "string"),
        ("n", "float64"),
    ]
    inputs = {
        "colour": CATEGORIES[["colour"]].to_numpy(dtype=object),
        "n": CATEGORIES[["n"]].to_numpy(),
    }
    answer = loaded.predictor.predict(inputs)
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(CATEGORIES), rtol=1e-6)
    inputs["colour"] = np.full((60, 1), "mauve", dtype=object)
    if library == "xgboost":
        with pytest.raises(WrongTypeError, match="'mauve'"):
            loaded.predictor.predict(inputs)
    else:
        assert loaded.predictor.predict(inputs)["predictions"].shape == (60,)
