"""Properties of comparing, drawing and sampling, over models and data that hypothesis makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.tree import DecisionTreeRegressor

from scoring.compilation.compare import difference
from scoring.compilation.compile import compile_model
from scoring.compilation.draw import draw_inputs
from scoring.formats.base import Detection, LoadedModel
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.runtimes.onnx import OnnxPredictor
from scoring.runtimes.sklearn import SklearnPredictor
from scoring.sample import to_inputs
from scoring.schema import ModelSchema, TensorSpec

FLOATS = st.floats(-1e6, 1e6, width=64)
ANY = npst.arrays(np.float64, st.integers(0, 6), elements=st.floats(allow_nan=True, width=64))


def _loaded(model: Any, columns: int, *outputs: TensorSpec, classes: Any = ()) -> LoadedModel:
    schema = ModelSchema(
        inputs=(TensorSpec("X", "float64", (None, columns)),), outputs=outputs, classes=classes
    )
    detection = Detection(format="sklearn-joblib", runtime="sklearn", path=Path("hand-made"))
    return LoadedModel(detection, model, schema, SklearnPredictor(model, schema), ())


@given(ANY)
def test_everything_agrees_with_itself(values: NDArray[np.float64]) -> None:
    assert difference(values, values.copy()) == 0.0


@given(ANY, st.data())
def test_a_difference_is_never_missed(values: NDArray[np.float64], data: st.DataObject) -> None:
    if values.size:
        other = values.copy()
        position = data.draw(st.integers(0, values.size - 1))
        other[position] = 0.0 if np.isnan(values[position]) else np.nan
        assert difference(values, other) == np.inf


@settings(max_examples=10, deadline=None)
@given(
    npst.arrays(np.float64, (24, 3), elements=FLOATS),
    npst.arrays(np.float64, (24,), elements=st.floats(-1e3, 1e3)),
    npst.arrays(np.float64, (16, 3), elements=FLOATS),
)
def test_a_compiled_tree_takes_every_row_the_same_way(
    rows: NDArray[np.float64], targets: NDArray[np.float64], fresh: NDArray[np.float64]
) -> None:
    """On its training rows and any others, in doubles as clients send them."""
    for model in (
        DecisionTreeRegressor(random_state=0).fit(rows, targets),
        HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=2).fit(rows, targets),
    ):
        loaded = _loaded(model, 3, TensorSpec("predictions", "float64", (None,)))
        outcome, compiled = compile_model(loaded)
        assert compiled is not None, outcome.reason
        session = onnxruntime.InferenceSession(compiled.model, providers=["CPUExecutionProvider"])
        dtype = NUMPY_DTYPES[compiled.schema.inputs[0].dtype]
        seen = np.concatenate([rows, fresh])
        answers = OnnxPredictor(session, compiled.schema).predict({"X": seen.astype(dtype)})
        assert difference(model.predict(seen), answers["predictions"]) <= 1e-5


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_even_votes_of_a_forest_go_the_same_way(trees: int, seed: int) -> None:
    """Two classes with no difference: votes are often exactly half and half."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 4, size=(40, 2)).astype(float)
    labels = np.array(["left", "right"])[rng.integers(0, 2, size=40)]
    model = RandomForestClassifier(trees, random_state=0).fit(rows, labels)
    if len(model.classes_) < 2:
        return
    loaded = _loaded(
        model,
        2,
        TensorSpec("predictions", "string", (None,)),
        TensorSpec("probabilities", "float64", (None, 2)),
        classes=("left", "right"),
    )
    outcome, compiled = compile_model(loaded)
    assert outcome.served, outcome.reason
    assert compiled is not None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_drawn_rows_fit_the_schema_and_repeat(seed: int, count: int) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    model = DecisionTreeRegressor(max_depth=3, random_state=0).fit(rows, rows[:, 0])
    loaded = _loaded(model, 3, TensorSpec("predictions", "float64", (None,)))
    one, two = (draw_inputs(loaded, count, seed) for _ in range(2))
    assert one["X"].shape == (count, 3)
    assert one["X"].dtype == np.float64
    assert np.isfinite(one["X"]).all()
    np.testing.assert_array_equal(one["X"], two["X"])


@given(npst.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(3)), elements=FLOATS))
def test_all_forms_of_a_sample_mean_the_same(rows: NDArray[np.float64]) -> None:
    schema = ModelSchema(
        inputs=(TensorSpec("X", "float64", (None, 3)),), outputs=(), features=("a", "b", "c")
    )
    records = [dict(zip("abc", row, strict=True)) for row in rows.tolist()]
    columns = {name: rows[:, index].tolist() for index, name in enumerate("abc")}
    for sample in (rows, rows.tolist(), records, columns, {"X": rows}):
        np.testing.assert_array_equal(to_inputs(sample, schema)["X"], rows)
