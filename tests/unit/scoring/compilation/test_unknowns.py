"""A compiled form serves only if it treats unknown categories as the original does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from scoring.compilation.unknowns import Inputs, disagreement
from scoring.errors import InputError, WrongTypeError
from scoring.formats.base import Trust
from scoring.payload import Codec
from scoring.prepare import prepare
from scoring.runtimes.onnx import OnnxPredictor, open_session
from scoring.schema import DType, Layout, ModelSchema, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    from scoring.prepare import Prepared

FRAME = pd.DataFrame({"city": ["Ulm", "Bonn", "Kiel"] * 20, "floor": np.arange(60) % 4})
RARE = {"min_frequency": 2, "handle_unknown": "infrequent_if_exist"}


def prepared(encoder: Any, column: str, out: Path) -> Prepared:
    table = ColumnTransformer([("c", encoder, [column])])
    model = make_pipeline(table, Ridge()).fit(FRAME, FRAME.floor)
    joblib.dump(model, out / "m.joblib")
    return prepare(out / "m.joblib", out, trust=Trust(pickle=True, types=()))


@pytest.mark.parametrize("column", ["city", "floor"])
@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()])
def test_a_category_that_is_refused_stays_refused(
    encoder: Any, column: str, tmp_path: Path
) -> None:
    found = prepared(encoder, column, tmp_path)
    assert found.serves == "compiled"
    # What the original drops, the compiled form drops, too.
    assert [spec.name for spec in found.schema.inputs if not spec.unused] == [column]
    predictor = OnnxPredictor(open_session(tmp_path / "compiled/model.onnx"), found.schema)
    codec = Codec(found.schema)
    record = {"city": "Ulm", "floor": 2}
    known = codec.decode(json.dumps({"data": [record]}).encode()).inputs
    assert predictor.predict(known)["predictions"].shape == (1,)
    record[column] = "Atlantis" if column == "city" else 99
    unknown = codec.decode(json.dumps({"data": [record]}).encode()).inputs
    with pytest.raises(InputError, match="Row 0 holds a category"):
        predictor.predict(unknown)


def test_whole_numbers_and_truth_values_stay_what_they_are(tmp_path: Path) -> None:
    frame = FRAME.assign(lift=FRAME.floor > 1)
    table = ColumnTransformer([("c", OneHotEncoder(), ["floor", "lift"])])
    model = make_pipeline(table, Ridge()).fit(frame, frame.floor)
    joblib.dump(model, tmp_path / "m.joblib")
    found = prepare(tmp_path / "m.joblib", tmp_path, trust=Trust(pickle=True, types=()))
    assert found.serves == "compiled"
    assert {s.name: s.dtype for s in found.schema.inputs if not s.unused} == {
        "floor": "int64",
        "lift": "bool",
    }
    codec = Codec(found.schema)
    predictor = OnnxPredictor(open_session(tmp_path / "compiled/model.onnx"), found.schema)
    rows = frame[["floor", "lift"]].head(8)
    body = json.dumps({"data": rows.to_dict("records")}).encode()
    answer = predictor.predict(codec.decode(body).inputs)["predictions"]
    np.testing.assert_allclose(answer, model.predict(frame.head(8)), atol=1e-5)
    assert found.schema.example is not None
    predictor.predict(codec.decode(json.dumps(found.schema.example).encode()).inputs)
    with pytest.raises(WrongTypeError, match="whole numbers"):
        codec.decode(b'{"data": [{"floor": 1.5, "lift": true}]}')


@pytest.mark.parametrize(
    ("encoder", "column"),
    [(OneHotEncoder(**RARE), "floor"), (OneHotEncoder(**RARE), "city")],
)
def test_a_graph_that_refuses_more_than_the_original_does_not_serve(
    encoder: Any, column: str, tmp_path: Path
) -> None:
    found = prepared(encoder, column, tmp_path)
    assert found.serves == "original"


def test_several_columns_are_encoded_at_once(tmp_path: Path) -> None:
    table = ColumnTransformer([("c", OrdinalEncoder(), ["city", "floor"])])
    model = make_pipeline(table, Ridge()).fit(FRAME, FRAME.floor)
    joblib.dump(model, tmp_path / "m.joblib")
    found = prepare(tmp_path / "m.joblib", tmp_path, trust=Trust(pickle=True, types=()))
    assert found.serves == "compiled"


def row(value: float, dtype: DType, *, layout: Layout = "table") -> tuple[ModelSchema, Inputs]:
    schema = ModelSchema(
        (TensorSpec("x", dtype, (None, 1)),), (TensorSpec("y", "float64", (None,)),), layout=layout
    )
    return schema, {"x": np.array([[value]], dtype=dtype)}


def small(inputs: Inputs) -> dict[str, Any]:
    if inputs["x"].max() > 100:
        raise InputError("too much")
    return {"y": np.zeros(len(inputs["x"]))}


def everything(inputs: Inputs) -> dict[str, Any]:
    return {"y": np.zeros(len(inputs["x"]))}


def other(inputs: Inputs) -> dict[str, Any]:
    return {"y": inputs["x"][:, 0] * 1.0}


@pytest.mark.parametrize(
    ("dtype", "original", "compiled", "reason"),
    [
        ("int64", small, everything, "answers to an unknown value of 'x', which the original ref"),
        ("float64", small, everything, "answers to an unknown value of 'x'"),
        ("int64", everything, small, "refuses an unknown value of 'x', which the original ans"),
        ("int64", everything, other, "answers otherwise to an unknown value of 'x'"),
        ("float64", everything, small, ""),
        ("int64", small, small, ""),
        ("bool", small, other, ""),
    ],
)
def test_a_difference_is_told_with_its_column(
    dtype: DType, original: Any, compiled: Any, reason: str
) -> None:
    schema, one = row(1, dtype)
    told = disagreement(schema, one, original, compiled, 1e-5)
    assert reason in told
    assert bool(told) == bool(reason)


def test_a_column_without_a_name_is_told_by_its_place() -> None:
    schema, one = row(1, "int64", layout="tensors")
    assert "in column 0" in disagreement(schema, one, small, everything, 1e-5)
