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

from scoring.errors import InputError, WrongTypeError
from scoring.formats.base import Trust
from scoring.payload import Codec
from scoring.prepare import prepare
from scoring.runtimes.onnx import OnnxPredictor, open_session

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
def test_a_category_that_is_refused_stays_refused(column: str, tmp_path: Path) -> None:
    found = prepared(OneHotEncoder(), column, tmp_path)
    assert found.serves == "compiled"
    # What the original drops, the compiled form drops, too.
    assert [spec.name for spec in found.schema.inputs if not spec.unused] == [column]
    predictor = OnnxPredictor(open_session(tmp_path / "compiled/model.onnx"), found.schema)
    codec = Codec(found.schema)
    row = {"city": "Ulm", "floor": 2}
    known = codec.decode(json.dumps({"data": [row]}).encode()).inputs
    assert predictor.predict(known)["predictions"].shape == (1,)
    row[column] = "Atlantis" if column == "city" else 99
    unknown = codec.decode(json.dumps({"data": [row]}).encode()).inputs
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


@pytest.mark.parametrize("column", ["city", "floor"])
def test_codes_are_never_made_up_for_unknown_categories(column: str, tmp_path: Path) -> None:
    found = prepared(OrdinalEncoder(), column, tmp_path)
    assert found.compilation is not None
    assert found.serves == "original"
    assert f"unknown value of '{column}', which the original refuses" in found.compilation.reason
