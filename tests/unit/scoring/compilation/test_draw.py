from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from scoring.compilation.draw import UNKNOWN, draw_inputs
from scoring.formats.base import Detection, LoadedModel
from scoring.runtimes.sklearn import SklearnPredictor
from scoring.schema import ModelSchema, TensorSpec

RNG = np.random.default_rng(5)
ROWS = RNG.normal([1000.0, -3.0], [50.0, 0.01], size=(120, 2))
TARGETS = (ROWS[:, 0] > 1000).astype(int)


def _loaded(model: Any, *inputs: TensorSpec) -> LoadedModel:
    schema = ModelSchema(
        inputs=inputs or (TensorSpec("X", "float64", (None, 2)),),
        outputs=(TensorSpec("predictions", "int64", (None,)),),
        layout="table" if len(inputs) > 1 else "tensors",
    )
    detection = Detection(format="sklearn-joblib", runtime="sklearn", path=Path("hand-made"))
    return LoadedModel(detection, model, schema, SklearnPredictor(model, schema), ())


def test_the_same_seed_gives_the_same_rows() -> None:
    loaded = _loaded(GaussianNB().fit(ROWS, TARGETS))
    one, two, other = (draw_inputs(loaded, 40, seed)["X"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_rows_lie_on_and_just_beside_thresholds() -> None:
    model = DecisionTreeClassifier(max_depth=1).fit(ROWS, TARGETS)
    (threshold,) = model.tree_.threshold[:1]
    drawn = draw_inputs(_loaded(model), 400, 0)["X"][:, model.tree_.feature[0]]
    assert threshold in drawn
    assert np.nextafter(threshold, np.inf) in drawn
    assert np.nextafter(threshold, -np.inf) in drawn
    assert (drawn < threshold - 1e-3).any()
    assert (drawn > threshold + 1e-3).any()


def test_thresholds_behind_a_scaler_are_found_in_the_raw_column() -> None:
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=1)).fit(ROWS, TARGETS)
    drawn = draw_inputs(_loaded(model), 400, 0)["X"]
    both = np.bincount(model.predict(drawn), minlength=2)
    assert (both > 40).all()
    assert abs(np.median(drawn[:, 0]) - 1000) < 100


@pytest.mark.parametrize(
    "model",
    [
        GaussianNB(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(MinMaxScaler(), LogisticRegression()),
        KNeighborsClassifier(),
        HistGradientBoostingClassifier(max_iter=3),
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_rows_lie_where_the_training_data_lay(model: Any) -> None:
    drawn = draw_inputs(_loaded(model.fit(ROWS, TARGETS)), 300, 0)["X"]
    assert abs(np.median(drawn[:, 0]) - 1000) < 60
    assert abs(np.median(drawn[:, 1]) + 3) < 0.1
    inexact = drawn.astype(np.float32).astype(np.float64) != drawn
    assert inexact.any()


def test_rows_that_a_model_keeps_come_first() -> None:
    drawn = draw_inputs(_loaded(KNeighborsClassifier().fit(ROWS, TARGETS)), 300, 0)["X"]
    np.testing.assert_array_equal(drawn[:120], ROWS)


def test_without_any_hint_numbers_have_several_scales() -> None:
    drawn = draw_inputs(_loaded(LogisticRegression().fit(ROWS, TARGETS)), 300, 0)["X"]
    assert np.abs(drawn).max() > 50
    assert np.median(np.abs(drawn)) < 5
    assert np.isfinite(drawn).all()


def test_values_are_missing_only_where_the_model_takes_that() -> None:
    model = HistGradientBoostingClassifier(max_iter=3).fit(ROWS, TARGETS)
    takes = draw_inputs(_loaded(model, TensorSpec("X", "float64", (None, 2), missing=True)), 80, 0)
    holes = [bool(np.isnan(row).any()) for row in takes["X"]]
    assert not any(holes[:60])
    assert all(holes[60:])
    assert not np.isnan(draw_inputs(_loaded(model), 80, 0)["X"]).any()


@pytest.mark.parametrize(("handle", "unknown"), [("ignore", True), ("error", False)])
def test_an_unknown_category_comes_where_it_is_allowed(handle: str, unknown: bool) -> None:
    towns = np.array([["rome"], ["oslo"], [None]], dtype=object)[np.arange(30) % 3]
    table = np.hstack([np.arange(30.0)[:, None].astype(object), towns])
    model = make_pipeline(
        ColumnTransformer(
            [
                ("n", StandardScaler(), [0]),
                (
                    "t",
                    make_pipeline(
                        SimpleImputer(missing_values=None, strategy="most_frequent"),
                        OneHotEncoder(handle_unknown=handle),
                    ),
                    [1],
                ),
            ]
        ),
        LogisticRegression(),
    ).fit(table, np.arange(30) % 2)
    specs = (
        TensorSpec("x0", "float64", (None, 1)),
        TensorSpec("x1", "string", (None, 1), missing=True),
    )
    drawn = draw_inputs(_loaded(model, *specs), 200, 0)
    values = set(drawn["x1"].ravel().tolist())
    assert values == {"rome", "oslo", None} | ({UNKNOWN} if unknown else set())
    assert drawn["x0"].shape == drawn["x1"].shape == (200, 1)


def test_texts_are_made_of_the_models_words() -> None:
    texts = ["the cat sat", "a dog barked", "birds fly high"] * 4
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [0, 1, 2] * 4)
    drawn = draw_inputs(_loaded(model, TensorSpec("X", "string", (None,))), 200, 0)["X"]
    assert drawn.shape == (200,)
    assert all(isinstance(text, str) for text in drawn)
    assert sum("cat" in text.lower() for text in drawn) > 40
    assert any(not text.isascii() for text in drawn)
    assert "" in drawn


def test_a_sample_widens_the_range() -> None:
    loaded = _loaded(LogisticRegression().fit(ROWS, TARGETS))
    drawn = draw_inputs(loaded, 200, 0, {"X": ROWS[:10]})["X"]
    assert abs(np.median(drawn[:, 0]) - 1000) < 100


def test_whole_numbers_and_truth_values() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, TARGETS)
    specs = (TensorSpec("a", "int64", (None, 1)), TensorSpec("b", "bool", (None, 1)))
    drawn = draw_inputs(_loaded(model, *specs), 50, 0)
    assert drawn["a"].dtype == np.int64
    assert drawn["b"].dtype == np.bool_
    assert {True, False} == set(drawn["b"].ravel().tolist())
