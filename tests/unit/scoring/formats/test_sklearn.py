"""Estimators tell what they take and answer; what is no estimator is refused with the reason."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC

from scoring.errors import (
    CorruptModelError,
    MissingDependencyError,
    ModelFileError,
    UnknownInputError,
    UnsupportedModelError,
    UntrustedModelError,
    WrongShapeError,
)
from scoring.formats.base import LoadedModel, Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.schema import TensorSpec

TRUSTED = Trust(pickle=True)
Loader = Callable[..., LoadedModel]
rng = np.random.default_rng(7)
X = rng.normal(size=(60, 4))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
PASSENGERS = pd.DataFrame(
    {
        "sex": ["m", "f", None, "f"] * 15,
        "age": [22.0, 38.0, np.nan, 4.0] * 15,
        "class": [1, 2, 3, 1] * 15,
        "note": ["paid late", "paid", "late again", "new"] * 15,
        "ticket": ["a", "b", "c", "d"] * 15,
    }
)
SURVIVED = np.array([0, 1, 1, 0] * 15)


class Rounding:
    """An estimator of a user's own: neither scikit-learn's base class nor its attributes."""

    def predict(self, data: Any) -> Any:
        return np.round(np.asarray(data)[:, 0])


def boom(_: Any) -> Any:
    raise ValueError("not with me")


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    def save_and_load(model: Any, sample: Any | None = None) -> LoadedModel:
        path = tmp_path / "model.bin"
        joblib.dump(model, path)
        return load_original(detect(path), TRUSTED, sample)

    return save_and_load


def columns() -> ColumnTransformer:
    return ColumnTransformer(
        [
            (
                "text",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
                ),
                ["sex"],
            ),
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("category", OneHotEncoder(), ["class"]),
            ("words", TfidfVectorizer(), "note"),
        ]
    )


def outputs(loaded: LoadedModel) -> list[tuple[str, str, tuple[int | None, ...]]]:
    return [(spec.name, spec.dtype, spec.shape) for spec in loaded.schema.outputs]


# ---- one matrix ------------------------------------------------------------------------------


def test_a_classifier(load: Loader, classifier: Any, iris: Any) -> None:
    loaded = load(classifier)
    assert loaded.schema.inputs == (TensorSpec("X", "float64", (None, 4)),)
    assert loaded.schema.layout == "tensors"
    assert loaded.schema.classes == (0, 1, 2)
    answer = loaded.predictor.predict({"X": iris[0]})
    assert answer["predictions"].dtype == np.int64
    np.testing.assert_array_equal(answer["predictions"], classifier.predict(iris[0]))
    np.testing.assert_array_equal(answer["probabilities"], classifier.predict_proba(iris[0]))


def test_column_names_of_numbers_become_features(load: Loader) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    loaded = load(LogisticRegression().fit(frame, np.where(Y, "yes", "no")))
    assert loaded.schema.features == ("a", "b", "c", "d")
    assert loaded.schema.classes == ("no", "yes")
    answer = loaded.predictor.predict({"X": X})
    assert answer["predictions"].dtype == object
    assert set(answer["predictions"]) == {"yes", "no"}
    assert all(type(label) is str for label in answer["predictions"])
    assert any(name.startswith("pandas==") for name in loaded.requirements)


@pytest.mark.parametrize(
    ("labels", "dtype", "classes"),
    [
        (Y.astype(bool), "bool", (False, True)),
        (Y.astype(float), "float64", (0.0, 1.0)),
        (np.where(Y, "b", "a").astype(object), "string", ("a", "b")),
        ((Y * 7).astype(np.int8), "int64", (0, 7)),
    ],
)
def test_labels_of_any_type(load: Loader, labels: Any, dtype: str, classes: Any) -> None:
    model = LogisticRegression().fit(X, labels)
    loaded = load(model)
    assert loaded.schema.outputs[0].dtype == dtype
    assert loaded.schema.classes == classes
    assert [type(c) for c in loaded.schema.classes] == [type(c) for c in classes]
    assert loaded.predictor.predict({"X": X})["predictions"].tolist() == model.predict(X).tolist()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LinearRegression().fit(X, Y), [("predictions", "float64", (None,))]),
        (LinearRegression().fit(X, X[:, :2]), [("predictions", "float64", (None, 2))]),
        (KMeans(2, n_init=1).fit(X), [("predictions", "int64", (None,))]),
        (IsolationForest(n_estimators=3).fit(X), [("predictions", "int64", (None,))]),
        (LinearSVC().fit(X, Y), [("predictions", "int64", (None,))]),
        (PCA(2).fit(X), [("transformed", "float64", (None, 2))]),
        (OneHotEncoder().fit(X[:, :1]), [("transformed", "float64", (None, 60))]),
        (
            GaussianMixture(2).fit(X),
            [("predictions", "int64", (None,)), ("probabilities", "float64", (None, 2))],
        ),
        (
            RandomForestClassifier(2).fit(X, np.c_[Y, Y]),
            [("predictions", "int64", (None, 2))],
        ),
        (
            GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2).fit(X, Y),
            [("predictions", "int64", (None,)), ("probabilities", "float64", (None, 2))],
        ),
        (make_pipeline(FunctionTransformer(np.log), Ridge()).fit(np.exp(X), Y), None),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_outputs_of_other_estimators(load: Loader, model: Any, expected: Any) -> None:
    loaded = load(model)
    assert outputs(loaded) == (expected or [("predictions", "float64", (None,))])
    width = loaded.schema.inputs[0].shape[1]
    data = np.abs(X[:3, :width]) if width != 1 else X[:3, :1]
    answer = loaded.predictor.predict({"X": data})
    for name, dtype, shape in outputs(loaded):
        assert answer[name].dtype == (object if dtype == "string" else dtype)
        assert answer[name].shape == (3, *shape[1:])


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        (LogisticRegression(), False),
        (make_pipeline(SimpleImputer(), LogisticRegression()), True),
        (HistGradientBoostingClassifier(max_iter=3), True),
        (make_pipeline(SimpleImputer(), PCA(2)), True),
        (KMeans(2, n_init=1), False),
    ],
)
def test_missing_values_are_tried_out(load: Loader, model: Any, takes: bool) -> None:
    assert load(model.fit(X, Y)).schema.inputs[0].missing is takes


def test_a_forest_answers_on_one_thread(load: Loader) -> None:
    loaded = load(RandomForestClassifier(4, n_jobs=-1).fit(X, Y))
    assert loaded.model.n_jobs == 1


# ---- columns ---------------------------------------------------------------------------------


def test_columns_of_strings_and_numbers(load: Loader) -> None:
    model = make_pipeline(columns(), LogisticRegression()).fit(PASSENGERS, SURVIVED)
    loaded = load(model)
    assert loaded.schema.layout == "table"
    assert loaded.schema.inputs == (
        TensorSpec("sex", "string", (None, 1), missing=True),
        TensorSpec("age", "float64", (None, 1), missing=True),
        TensorSpec("class", "int64", (None, 1)),
        TensorSpec("note", "string", (None, 1)),
        TensorSpec("ticket", "string", (None, 1), missing=True, unused=True),
    )
    rows = PASSENGERS.head(8)
    inputs: dict[str, Any] = {
        "sex": np.array([["m"], ["f"], [None], ["f"]] * 2, dtype=object),
        "age": rows[["age"]].to_numpy(),
        "class": rows[["class"]].to_numpy(),
        "note": rows[["note"]].to_numpy(dtype=object),
        "ticket": rows[["ticket"]].to_numpy(dtype=object),
    }
    answer = loaded.predictor.predict(inputs)
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(rows), rtol=1e-12)


@pytest.mark.parametrize("values", [np.arange(60), pd.date_range("2024-01-01", periods=60)])
def test_a_column_that_is_dropped_may_hold_anything(load: Loader, values: Any) -> None:
    unused = PASSENGERS.assign(ticket=values)
    model = make_pipeline(columns(), LogisticRegression()).fit(unused, SURVIVED)
    dropped = TensorSpec("ticket", "string", (None, 1), missing=True, unused=True)
    by_column = {name: unused[name].tolist() for name in unused.columns}
    for sample in (None, unused.head(), unused.head(3).to_dict("records"), by_column):
        loaded = load(model, sample)
        assert loaded.schema.inputs[-1] == dropped


def test_a_dropped_column_of_an_array_of_numbers_is_a_number(load: Loader) -> None:
    table = ColumnTransformer([("scale", StandardScaler(), [0, 2])])
    rows = np.arange(18.0).reshape(6, 3)
    loaded = load(make_pipeline(table, LinearRegression()).fit(rows, rows[:, 0]))
    assert [(s.dtype, s.shape) for s in loaded.schema.inputs] == [("float64", (None, 3))]
    answer = loaded.predictor.predict({"X": rows})["predictions"]
    np.testing.assert_allclose(answer, rows[:, 0], atol=1e-9)


def test_an_estimator_that_takes_only_the_type_it_was_fitted_on(load: Loader) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    model = KMeans(3, random_state=0, n_init=1).fit(rows)
    loaded = load(model)
    assert loaded.schema.inputs[0].dtype == "float32"
    np.testing.assert_array_equal(
        loaded.predictor.predict({"X": rows})["predictions"], model.predict(rows)
    )


def test_samples_that_do_not_fit(load: Loader, classifier: Any) -> None:
    with pytest.raises(WrongShapeError, match="4 columns"):
        load(classifier, np.zeros((3, 5)))
    model = make_pipeline(columns(), LogisticRegression()).fit(PASSENGERS, SURVIVED)
    with pytest.raises(UnknownInputError, match="age"):
        load(model, PASSENGERS.drop(columns="age"))
    dated = pd.DataFrame({"when": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    stateless = make_pipeline(FunctionTransformer(lambda d: d.astype(int)), LinearRegression())
    stateless.fit(dated, [0, 1])
    from scoring.formats.sklearn import describe

    with pytest.raises(UnsupportedModelError, match="datetime64"):
        describe(stateless, dated, Path("m"))


def test_a_category_that_was_a_number_when_fitted(load: Loader) -> None:
    table = ColumnTransformer([("c", OrdinalEncoder(), ["class"])], remainder="passthrough")
    data = PASSENGERS[["age", "class"]]
    loaded = load(
        make_pipeline(table, HistGradientBoostingClassifier(max_iter=3)).fit(data, SURVIVED)
    )
    assert [(s.name, s.dtype, s.missing) for s in loaded.schema.inputs] == [
        ("age", "float64", True),
        ("class", "int64", False),
    ]


def test_mixed_columns_of_an_array(load: Loader) -> None:
    data = np.array([["a", 1.0], ["b", 2.5]] * 10, dtype=object)
    table = ColumnTransformer([("o", OneHotEncoder(), [0]), ("s", StandardScaler(), [1])])
    model = make_pipeline(table, LogisticRegression()).fit(data, [0, 1] * 10)
    loaded = load(model)
    assert [(s.name, s.dtype) for s in loaded.schema.inputs] == [
        ("x0", "string"),
        ("x1", "float64"),
    ]
    inputs = {"x0": np.array([["a"], ["b"]], dtype=object), "x1": np.array([[1.0], [2.5]])}
    assert loaded.predictor.predict(inputs)["predictions"].tolist() == [0, 1]


def test_a_matrix_of_strings(load: Loader) -> None:
    data = np.array([["a", "x"], ["b", "y"]] * 10)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    loaded = load(model.fit(data, [0, 1] * 10))
    assert loaded.schema.inputs == (TensorSpec("X", "string", (None, 2), missing=True),)


def test_categories_of_a_frame_in_gradient_boosting(load: Loader) -> None:
    data = PASSENGERS[["sex", "age"]].astype({"sex": "category"})
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=3)
    model.fit(data, SURVIVED)
    loaded = load(model)
    assert [(s.name, s.dtype) for s in loaded.schema.inputs] == [
        ("sex", "string"),
        ("age", "float64"),
    ]
    inputs: dict[str, Any] = {
        "sex": np.array([["m"], ["f"], [None]], dtype=object),
        "age": np.array([[22.0], [38.0], [np.nan]]),
    }
    np.testing.assert_array_equal(
        loaded.predictor.predict(inputs)["probabilities"], model.predict_proba(data.head(3))
    )


def test_none_and_nan_are_told_apart_by_the_encoder(load: Loader) -> None:
    """An encoder fitted on None does not know NaN, and the other way round."""
    for gap in (None, np.nan):
        data = pd.DataFrame({"c": pd.Series(["a", "b", gap] * 5, dtype=object), "n": 1.0})
        table = ColumnTransformer([("o", OneHotEncoder(), ["c"])], remainder="passthrough")
        loaded = load(make_pipeline(table, LogisticRegression()).fit(data, [0, 1, 2] * 5))
        assert loaded.schema.inputs[0].missing
        inputs: dict[str, Any] = {"c": np.array([[None]], dtype=object), "n": np.array([[1.0]])}
        assert loaded.predictor.predict(inputs)["predictions"].tolist() == [2]


@pytest.mark.parametrize("union", [False, True])
def test_text(load: Loader, union: bool) -> None:
    words: Any = TfidfVectorizer()
    words = (
        FeatureUnion([("a", words), ("b", TfidfVectorizer(analyzer="char"))]) if union else words
    )
    model = make_pipeline(words, LogisticRegression()).fit(PASSENGERS["note"], SURVIVED)
    loaded = load(model)
    assert loaded.schema.inputs == (TensorSpec("X", "string", (None,)),)
    texts = PASSENGERS["note"].to_numpy(dtype=object)
    np.testing.assert_array_equal(
        loaded.predictor.predict({"X": texts})["predictions"], model.predict(texts)
    )


def test_an_object_of_the_users_own_needs_a_sample() -> None:
    from scoring.formats.sklearn import describe

    with pytest.raises(UnsupportedModelError, match="how many features") as caught:
        describe(Rounding(), None, Path("m.pkl"))
    assert "--sample" in caught.value.hint
    schema = describe(Rounding(), [[1.0, 2.0]], Path("m.pkl"))
    assert schema.inputs == (TensorSpec("X", "float64", (None, 2)),)


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "what"),
    [
        ({"model": 1}, r"a dict with 1 keys \('model'\)"),
        ((TfidfVectorizer(), LogisticRegression()), r"a tuple of 2 \(TfidfVectorizer, Log"),
        (LogisticRegression(), "has not been fitted"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "has not been fitted"),
        (LogisticRegression, "the class LogisticRegression"),
        (DBSCAN().fit(X), "a DBSCAN, which cannot predict"),
        (np.zeros(3), "an? ndarray"),
        (
            GridSearchCV(LogisticRegression(), {"C": [1]}, refit=False, cv=2).fit(X, Y),
            "GridSearchCV",
        ),
    ],
    ids=str,
)
def test_no_estimator(load: Loader, thing: Any, what: str) -> None:
    with pytest.raises(UnsupportedModelError, match=what) as caught:
        load(thing)
    assert caught.value.hint


def test_an_estimator_that_fails_on_everything(load: Loader) -> None:
    from scoring.formats.sklearn import describe

    model = make_pipeline(FunctionTransformer(), LinearRegression()).fit(X, Y)
    model.steps[0][1].func = boom
    with pytest.raises(UnsupportedModelError, match="ValueError: not with me"):
        describe(model, None, Path("m.pkl"))


def test_pickles_stay_closed_without_trust(joblib_file: Path) -> None:
    with pytest.raises(UntrustedModelError) as caught:
        load_original(detect(joblib_file), Trust())
    assert "--trust-pickle" in caught.value.hint


def test_a_pickle_of_the_training_script(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04\x8c\x08__main__\x94\x8c\x06Mystep\x94\x93\x94)\x81\x94.")
    with pytest.raises(UnsupportedModelError, match="code that is not in it") as caught:
        load_original(detect(path), TRUSTED)
    assert "module" in caught.value.hint


def test_a_pickle_of_a_package_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04\x8c\x0bcatboost.xy\x94\x8c\x02Cl\x94\x93\x94)\x81\x94.")
    with pytest.raises(MissingDependencyError, match="the package catboost"):
        load_original(detect(path), TRUSTED)


def test_another_minor_version_of_scikit_learn(tmp_path: Path, classifier: Any) -> None:
    from sklearn import __version__

    content = pickle.dumps(classifier)
    path = tmp_path / "model.pkl"
    other = b"0.9.8"
    path.write_bytes(content.replace(__version__.encode(), other))
    with pytest.raises(MissingDependencyError, match=r"made with scikit-learn 0\.9\.8") as caught:
        load_original(detect(path), TRUSTED)
    assert "scikit-learn==0.9.*" in caught.value.hint
    patch = f"{__version__.rsplit('.', 1)[0]}.9"[: len(__version__)].encode()
    path.write_bytes(content.replace(__version__.encode(), patch))
    assert load_original(detect(path), TRUSTED).schema.classes == (0, 1, 2)


def test_a_pickle_that_prints_warns_or_exits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02cbuiltins\nprint\nX\x05\x00\x00\x00noise\x85R.")
    with pytest.raises(UnsupportedModelError, match="NoneType"):
        load_original(detect(path), TRUSTED)
    path.write_bytes(b"\x80\x02csys\nexit\n)R.")
    with pytest.raises(UnsupportedModelError, match="ended the program"):
        load_original(detect(path), TRUSTED)
    assert capsys.readouterr() == ("", "")


def test_a_damaged_joblib_file(tmp_path: Path, joblib_file: Path) -> None:
    content = bytearray(joblib_file.read_bytes())
    at = content.index(b"NumpyArrayWrapper")
    content[at + 60 : at + 140] = bytes(80)
    path = tmp_path / "model.joblib"
    path.write_bytes(content)
    with pytest.raises(CorruptModelError, match="damaged"):
        load_original(detect(path), TRUSTED)


def test_a_missing_framework_is_named(monkeypatch: pytest.MonkeyPatch, joblib_file: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependencyError, match="scikit-learn") as caught:
        load_original(detect(joblib_file), TRUSTED)
    assert "fieldpost[sklearn]" in caught.value.hint


# ---- skops -----------------------------------------------------------------------------------


def test_skops_needs_no_trust_for_its_own_types(tmp_path: Path, classifier: Any) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(classifier, path)
    loaded = load_original(detect(path), Trust())
    assert loaded.schema.classes == (0, 1, 2)
    assert any(name.startswith("skops==") for name in loaded.requirements)


def test_skops_with_types_that_are_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(make_pipeline(FunctionTransformer(np.vander), Ridge()).fit(X[:, 0], Y), path)
    unknown = skops.io.get_untrusted_types(file=path)
    assert unknown
    with pytest.raises(UntrustedModelError, match=unknown[0]) as caught:
        load_original(detect(path), Trust(pickle=True, types=tuple(unknown[1:])))
    assert f"--trust-type {unknown[0]}" in caught.value.hint


def test_requirements_name_the_packages_of_foreign_parts(load: Loader) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1, min_child_samples=2).fit(X, Y)
    loaded = load(make_pipeline(StandardScaler(), model).fit(X, Y))
    assert f"lightgbm=={lightgbm.__version__}" in loaded.requirements
    assert loaded.schema.inputs[0].shape == (None, 4)


def test_every_error_is_one_of_ours(tmp_path: Path, joblib_file: Path) -> None:
    """Bytes flipped one at a time: an error of the tree, or a model, never anything else."""
    content = joblib_file.read_bytes()
    path = tmp_path / "model.joblib"
    for at in range(0, len(content), 37):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x15]) + content[at + 1 :])
        with contextlib.suppress(ModelFileError):
            assert load_original(detect(path), TRUSTED).schema.outputs
