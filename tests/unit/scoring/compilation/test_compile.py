"""A zoo of models on real data: what serves compiled answers as the original does, on new rows."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import xgboost
from numpy.typing import NDArray
from sklearn import ensemble, linear_model, naive_bayes, neighbors, svm
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from scoring.compilation import Compilation
from scoring.compilation.compare import compare
from scoring.compilation.compile import Compiled, compile_model
from scoring.formats.base import LoadedModel, Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.runtimes.onnx import OnnxPredictor
from scoring.sample import to_inputs

IRIS, SPECIES = load_iris(return_X_y=True)
CANCER, MALIGN = load_breast_cancer(return_X_y=True)
DIABETES, PROGRESS = load_diabetes(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[SPECIES]
HOLES = np.where(np.random.default_rng(3).random(IRIS.shape) < 0.1, np.nan, IRIS)

Columns = tuple[Any, Any]


def _people(missing: bool) -> pd.DataFrame:
    """The diabetes patients as a table with strings: groups by age and by blood pressure."""
    raw = load_diabetes(scaled=False)
    frame = pd.DataFrame(raw.data, columns=raw.feature_names)[["age", "bmi"]]
    frame["group"] = np.where(frame.age > 50, "older", np.where(frame.age > 35, "middle", "young"))
    frame["pressure"] = np.where(raw.data[:, 3] > 95, "high", "normal")
    if missing:
        frame.loc[::7, "bmi"] = np.nan
        frame.loc[::5, "group"] = None
    return frame


PEOPLE, GAPS = _people(missing=False), _people(missing=True)
WORSE = np.where(PROGRESS > 140, "worse", "stable")
TEXTS = [
    "the cat sat on the mat",
    "a dog barked at the cat",
    "birds fly high above",
    "the dog sat there",
    "high birds and low dogs",
    "it's a cat-and-dog story, isn't it?",
] * 8
TOPICS = np.array([0, 1, 2, 1, 2, 0] * 8)


def _table(numbers: Any, strings: Any) -> ColumnTransformer:
    return ColumnTransformer(
        [("numbers", numbers, ["age", "bmi"]), ("strings", strings, ["group", "pressure"])]
    )


def _one_hot() -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore")


def _logistic() -> linear_model.LogisticRegression:
    return linear_model.LogisticRegression(max_iter=2000)


class Case(NamedTuple):
    """A model, its data, and whether the compiled form is to serve."""

    make: Callable[[], Any]
    rows: Any = IRIS
    targets: Any = SPECIES
    serves: bool = True


ZOO: dict[str, Case] = {
    "logistic": Case(_logistic),
    "logistic-strings": Case(_logistic, targets=NAMES),
    "logistic-bool": Case(_logistic, targets=SPECIES == 1),
    "logistic-float-labels": Case(_logistic, targets=SPECIES.astype(float)),
    "forest": Case(lambda: ensemble.RandomForestClassifier(10, random_state=0)),
    "forest-even": Case(
        lambda: ensemble.RandomForestClassifier(20, random_state=0), CANCER, MALIGN
    ),
    "forest-strings": Case(
        lambda: ensemble.RandomForestClassifier(5, random_state=0), targets=NAMES
    ),
    "extra-trees": Case(lambda: ensemble.ExtraTreesClassifier(10, random_state=0)),
    "tree": Case(lambda: DecisionTreeClassifier(random_state=0)),
    "tree-scaled": Case(
        lambda: make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    ),
    "forest-regressor": Case(
        lambda: ensemble.RandomForestRegressor(10, random_state=0), DIABETES, PROGRESS
    ),
    "histogram": Case(lambda: ensemble.HistGradientBoostingClassifier(max_iter=8), HOLES),
    "histogram-regressor": Case(
        lambda: ensemble.HistGradientBoostingRegressor(max_iter=8, loss="poisson"),
        DIABETES,
        PROGRESS,
    ),
    "boosting": Case(lambda: ensemble.GradientBoostingClassifier(n_estimators=5)),
    "boosting-two": Case(
        lambda: ensemble.GradientBoostingClassifier(n_estimators=5, loss="exponential"),
        CANCER,
        MALIGN,
    ),
    "boosting-regressor": Case(
        lambda: ensemble.GradientBoostingRegressor(n_estimators=5, loss="huber"),
        DIABETES,
        PROGRESS,
    ),
    "bagging-scaled": Case(
        lambda: make_pipeline(StandardScaler(), ensemble.BaggingClassifier(n_estimators=3))
    ),
    "isolation": Case(lambda: ensemble.IsolationForest(n_estimators=10, random_state=0)),
    "isolation-share": Case(
        lambda: ensemble.IsolationForest(
            n_estimators=10, random_state=0, contamination=0.1, max_features=0.5
        )
    ),
    "svc": Case(svm.SVC),
    "svc-probability": Case(lambda: make_pipeline(StandardScaler(), svm.SVC(probability=True))),
    "linear-svc": Case(svm.LinearSVC),
    "linear-svc-piped": Case(lambda: make_pipeline(StandardScaler(), svm.LinearSVC())),
    "svr": Case(lambda: make_pipeline(StandardScaler(), svm.SVR()), DIABETES, PROGRESS),
    # Measured to 0.1 cm, irises are often equally far: neighbours are chosen by chance.
    "neighbours-ties": Case(
        neighbors.KNeighborsClassifier,
        IRIS,
        SPECIES,
        serves=False,
    ),
    "neighbours": Case(neighbors.KNeighborsRegressor, DIABETES, PROGRESS),
    "gaussian-bayes": Case(naive_bayes.GaussianNB),
    "multinomial-bayes": Case(naive_bayes.MultinomialNB),
    "network": Case(lambda: MLPClassifier((8,), max_iter=150, random_state=0)),
    "clusters": Case(lambda: KMeans(3, random_state=0, n_init=3)),
    "pca": Case(lambda: make_pipeline(StandardScaler(), PCA(2), _logistic())),
    "union": Case(lambda: make_pipeline(make_union(PCA(2), MinMaxScaler()), _logistic())),
    "polynomial": Case(
        lambda: make_pipeline(PolynomialFeatures(2), linear_model.Ridge()), DIABETES, PROGRESS
    ),
    "scaler-alone": Case(StandardScaler),
    "voting-soft": Case(
        lambda: ensemble.VotingClassifier(
            [("a", _logistic()), ("b", ensemble.RandomForestClassifier(5, random_state=0))],
            voting="soft",
        )
    ),
    "voting-hard": Case(
        lambda: ensemble.VotingClassifier([("a", _logistic()), ("b", naive_bayes.GaussianNB())])
    ),
    "stacking": Case(
        lambda: ensemble.StackingClassifier(
            [("a", _logistic()), ("b", ensemble.RandomForestClassifier(5, random_state=0))]
        )
    ),
    "calibrated": Case(lambda: CalibratedClassifierCV(svm.LinearSVC())),
    "search": Case(
        lambda: GridSearchCV(make_pipeline(StandardScaler(), _logistic()), {}, cv=2),
    ),
    "linear": Case(linear_model.LinearRegression, DIABETES, PROGRESS),
    "many-outputs": Case(
        linear_model.LinearRegression,
        DIABETES,
        np.stack([PROGRESS, 2 * PROGRESS], axis=1),
    ),
    "many-regressors": Case(
        lambda: MultiOutputRegressor(linear_model.Ridge()),
        DIABETES,
        np.stack([PROGRESS, 2 * PROGRESS], axis=1),
    ),
    "many-labels": Case(
        lambda: ensemble.RandomForestClassifier(5, random_state=0),
        targets=np.stack([SPECIES == 1, SPECIES == 2], axis=1).astype(int),
        serves=False,
    ),
    "frame": Case(_logistic, pd.DataFrame(IRIS, columns=["a", "b", "label", "probabilities"])),
    "table": Case(
        lambda: make_pipeline(_table(StandardScaler(), _one_hot()), _logistic()), PEOPLE, WORSE
    ),
    "table-strict": Case(
        lambda: make_pipeline(_table(StandardScaler(), OneHotEncoder()), _logistic()),
        PEOPLE,
        WORSE,
    ),
    "table-selected": Case(
        lambda: make_pipeline(
            ColumnTransformer(
                [("strings", _one_hot(), make_column_selector(dtype_exclude="number"))],
                remainder="passthrough",
            ),
            ensemble.RandomForestClassifier(5, random_state=0),
        ),
        PEOPLE,
        WORSE,
    ),
    "table-imputed": Case(
        lambda: make_pipeline(
            _table(
                make_pipeline(SimpleImputer(), StandardScaler()),
                make_pipeline(SimpleImputer(strategy="most_frequent"), _one_hot()),
            ),
            _logistic(),
        ),
        GAPS,
        WORSE,
    ),
    "table-filled": Case(
        lambda: make_pipeline(
            _table(
                SimpleImputer(strategy="median", add_indicator=True),
                make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), _one_hot()),
            ),
            ensemble.RandomForestClassifier(10, random_state=0),
        ),
        GAPS,
        WORSE,
    ),
    "table-missing-category": Case(
        lambda: make_pipeline(_table(SimpleImputer(), _one_hot()), _logistic()), GAPS, WORSE
    ),
    "table-ordinal": Case(
        lambda: make_pipeline(
            _table(
                "passthrough", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
            ),
            ensemble.HistGradientBoostingClassifier(max_iter=8),
        ),
        PEOPLE,
        WORSE,
    ),
    "table-xgboost": Case(
        lambda: make_pipeline(
            _table(StandardScaler(), _one_hot()), xgboost.XGBRegressor(n_estimators=8, n_jobs=1)
        ),
        PEOPLE,
        PROGRESS,
    ),
    "table-lightgbm": Case(
        lambda: make_pipeline(
            _table("passthrough", _one_hot()),
            lightgbm.LGBMClassifier(n_estimators=8, n_jobs=1, verbose=-1),
        ),
        PEOPLE,
        WORSE,
    ),
    "xgboost": Case(lambda: xgboost.XGBClassifier(n_estimators=8, n_jobs=1)),
    "xgboost-linear": Case(
        lambda: xgboost.XGBRegressor(n_estimators=8, n_jobs=1, booster="gblinear"),
        DIABETES,
        PROGRESS,
        serves=False,
    ),
    "lightgbm": Case(
        lambda: lightgbm.LGBMClassifier(n_estimators=8, n_jobs=1, verbose=-1), HOLES, NAMES
    ),
    "lightgbm-linear": Case(
        lambda: lightgbm.LGBMRegressor(n_estimators=4, n_jobs=1, verbose=-1, linear_tree=True),
        DIABETES,
        PROGRESS,
        serves=False,
    ),
    "voting-boosters": Case(
        lambda: ensemble.VotingClassifier(
            [
                ("a", xgboost.XGBClassifier(n_estimators=4, n_jobs=1)),
                ("b", lightgbm.LGBMClassifier(n_estimators=4, n_jobs=1, verbose=-1)),
                ("c", ensemble.HistGradientBoostingClassifier(max_iter=4)),
            ],
            voting="soft",
        )
    ),
    "text": Case(lambda: make_pipeline(TfidfVectorizer(), _logistic()), TEXTS, TOPICS),
    "text-counts": Case(
        lambda: make_pipeline(CountVectorizer(ngram_range=(1, 2)), naive_bayes.MultinomialNB()),
        TEXTS,
        TOPICS,
    ),
    "text-letters": Case(
        lambda: make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3)), _logistic()),
        TEXTS,
        TOPICS,
        serves=False,
    ),
    "text-hashed": Case(
        lambda: make_pipeline(HashingVectorizer(n_features=64), _logistic()),
        TEXTS,
        TOPICS,
        serves=False,
    ),
    "function": Case(
        lambda: make_pipeline(FunctionTransformer(np.log1p), _logistic()), serves=False
    ),
}


def _load(model: Any, folder: Path, sample: Any = None) -> LoadedModel:
    path = folder / "model.joblib"
    joblib.dump(model, path)
    return load_original(detect(path), Trust(pickle=True), sample)


def _fit(case: Case) -> tuple[Any, Any]:
    """The model fitted on every other row, and the rows that it has not seen."""
    model = case.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(case.rows[::2], case.targets[::2])
    return model, case.rows[1::2]


def _answers(compiled: Compiled, inputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(compiled.model, providers=["CPUExecutionProvider"])
    feeds = {
        spec.name: inputs[spec.name].astype(NUMPY_DTYPES[spec.dtype])
        for spec in compiled.schema.inputs
    }
    return OnnxPredictor(session, compiled.schema).predict(feeds)


@pytest.mark.parametrize("name", list(ZOO))
def test_what_serves_agrees_on_new_rows(name: str, tmp_path: Path) -> None:
    model, unseen = _fit(ZOO[name])
    loaded = _load(model, tmp_path)
    outcome, compiled = compile_model(loaded)
    assert outcome.served is ZOO[name].serves, outcome.reason
    assert outcome.reason.endswith(".")
    assert "\n" not in outcome.reason
    if not outcome.served:
        assert compiled is None
        return
    assert compiled is not None
    assert outcome.rows_compared > 1000
    assert outcome.label_mismatches == 0
    assert outcome.max_difference <= outcome.tolerance == 1e-5
    inputs = to_inputs(unseen, loaded.schema)
    agreement = compare(loaded.schema, loaded.predictor.predict(inputs), _answers(compiled, inputs))
    assert agreement.rows == len(unseen)
    assert agreement.within(1e-5), agreement
    assert agreement.labels or not loaded.schema.classes


@pytest.mark.parametrize("name", ["logistic-bool", "table-imputed", "text", "scaler-alone"])
def test_compiled_schema_is_the_original_with_other_element_types(
    name: str, tmp_path: Path
) -> None:
    loaded = _load(_fit(ZOO[name])[0], tmp_path)
    outcome, compiled = compile_model(loaded)
    assert compiled is not None
    for one, other in (
        (loaded.schema.inputs, compiled.schema.inputs),
        (loaded.schema.outputs, compiled.schema.outputs),
    ):
        assert [(s.name, s.shape, s.missing) for s in one] == [
            (s.name, s.shape, s.missing) for s in other
        ]
    given = {spec.dtype for spec in compiled.schema.inputs}
    assert given <= {outcome.dtype, "string"}
    assert compiled.schema.outputs[0].dtype in (loaded.schema.outputs[0].dtype, "float32")
    assert compiled.schema.classes == loaded.schema.classes
    session = onnxruntime.InferenceSession(compiled.model, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()] == [
        spec.name for spec in compiled.schema.outputs
    ]


def test_without_a_converter_the_reason_names_the_class(tmp_path: Path) -> None:
    loaded = _load(_fit(ZOO["text-hashed"])[0], tmp_path)
    outcome, compiled = compile_model(loaded)
    assert compiled is None
    assert outcome == Compilation(
        served=False, reason="There is no ONNX converter for HashingVectorizer."
    )


def test_a_disagreement_is_counted(tmp_path: Path) -> None:
    loaded = _load(_fit(ZOO["many-labels"])[0], tmp_path)
    outcome, _ = compile_model(loaded)
    assert outcome.label_mismatches > 0
    assert str(outcome.label_mismatches) in outcome.reason


def test_the_tolerance_decides(tmp_path: Path) -> None:
    loaded = _load(_fit(ZOO["forest-regressor"])[0], tmp_path)
    strict, nothing = compile_model(loaded, tolerance=1e-12)
    assert nothing is None
    assert not strict.served
    assert "tolerance 1e-12" in strict.reason
    lenient, _ = compile_model(loaded, tolerance=1e-6)
    assert lenient.served


def test_values_that_a_float_cannot_tell_apart_get_doubles(tmp_path: Path) -> None:
    """Time stamps of neighbouring seconds are one float32."""
    seconds = 1.7e9 + np.arange(200.0)[:, None]
    even = (seconds[:, 0] // 8 % 2).astype(int)
    model = ensemble.HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=4)
    loaded = _load(model.fit(seconds, even), tmp_path)
    outcome, compiled = compile_model(loaded)
    assert compiled is not None
    assert outcome.dtype == "float64"
    answers = _answers(compiled, {"X": seconds})
    np.testing.assert_array_equal(answers["predictions"], model.predict(seconds))


def test_the_users_sample_is_compared_too(tmp_path: Path) -> None:
    loaded = _load(_fit(ZOO["logistic"])[0], tmp_path)
    alone, _ = compile_model(loaded)
    with_sample, _ = compile_model(loaded, sample={"X": IRIS[:7]})
    assert with_sample.served
    assert with_sample.rows_compared == alone.rows_compared + 7


class Moody(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator with a converter of its own that answers otherwise than the estimator does."""

    def fit(self, rows: Any, targets: Any) -> Moody:
        self.n_features_in_ = rows.shape[1]
        self.classes_ = np.unique(targets)
        return self

    def predict(self, rows: Any) -> Any:
        return self.classes_[(np.asarray(rows)[:, 0] > 0).astype(int)]

    def onnx_parser(self) -> Any:
        print("a converter may print")
        warnings.warn("and warn", stacklevel=1)
        raise SystemExit("a converter may do anything")


def test_a_converter_that_raises_or_prints_does_not_leak(
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = Moody().fit(IRIS, SPECIES > 0)
    loaded = _hand_made(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome, compiled = compile_model(loaded)
    assert compiled is None
    assert not outcome.served
    assert outcome.reason == "The converter failed: a converter may do anything."
    assert not caught
    assert capfd.readouterr() == ("", "")


def _hand_made(model: Any) -> LoadedModel:
    from scoring.formats.base import Detection
    from scoring.runtimes.sklearn import SklearnPredictor
    from scoring.schema import ModelSchema, TensorSpec

    schema = ModelSchema(
        inputs=(TensorSpec("X", "float64", (None, 4)),),
        outputs=(TensorSpec("predictions", "bool", (None,)),),
        classes=(False, True),
    )
    detection = Detection(format="sklearn-joblib", runtime="sklearn", path=Path("hand-made"))
    return LoadedModel(
        detection=detection,
        model=model,
        schema=schema,
        predictor=SklearnPredictor(model, schema),
        requirements=(),
    )


def test_the_same_model_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    names = ["table-filled", "text", "voting-boosters", "svc-probability"]
    here = []
    for name in names:
        (tmp_path / name).mkdir()
        loaded = _load(_fit(ZOO[name])[0], tmp_path / name)
        once, again = (compile_model(loaded)[1] for _ in range(2))
        assert once is not None
        assert once == again
        here.append(hashlib.sha256(once.model).hexdigest())
    there = _digests_elsewhere([tmp_path / name / "model.joblib" for name in reversed(names)])
    assert here == there[::-1]


def _digests_elsewhere(paths: list[Path]) -> list[str]:
    program = (
        "import sys, hashlib; from pathlib import Path\n"
        "from scoring.prepare import prepare; from scoring.formats.base import Trust\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    prepare(path, path.parent, trust=Trust(pickle=True))\n"
        "    compiled = path.parent / 'compiled/model.onnx'\n"
        "    print(hashlib.sha256(compiled.read_bytes()).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = _fit(ZOO["table-imputed"])[0]
    transformer = model.steps[0][1]
    columns = [columns for _, _, columns in transformer.transformers_]
    loaded = _load(model, tmp_path)
    compile_model(loaded)
    inner = loaded.model.steps[0][1]
    assert [columns for _, _, columns in inner.transformers_] == columns
    imputer = inner.named_transformers_["strings"].steps[0][1]
    assert np.isnan(imputer.missing_values)
