from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import onnx
import pandas as pd
import pytest
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from scoring.errors import UntrustedModelError, WrongShapeError
from scoring.formats.base import Trust
from scoring.prepare import Prepared, prepare, prepare_isolated
from scoring.runtimes.onnx import OnnxPredictor, open_session
from scoring.sample import to_inputs

IRIS, SPECIES = load_iris(return_X_y=True)
TRUSTED = Trust(pickle=True)


@pytest.fixture(scope="module")
def logistic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logistic") / "iris.joblib"
    joblib.dump(LogisticRegression(max_iter=500).fit(IRIS, SPECIES), path)
    return path


def _predictor(prepared: Prepared, out: Path) -> OnnxPredictor:
    return OnnxPredictor(open_session(out / "compiled/model.onnx"), prepared.schema)


def test_a_model_that_compiles_is_served_without_its_library(
    logistic: Path, tmp_path: Path
) -> None:
    prepared = prepare(logistic, tmp_path, trust=TRUSTED, sample=IRIS[:3])
    assert (prepared.format, prepared.runtime, prepared.serves) == (
        "sklearn-joblib",
        "onnx",
        "compiled",
    )
    assert prepared.primary == "iris.joblib"
    assert prepared.requirements == ()
    assert any(line.startswith("scikit-learn==") for line in prepared.native_requirements)
    assert prepared.pickle_trusted
    assert prepared.compilation is not None
    assert prepared.compilation.served
    assert prepared.schema.example == {"data": [[5.1, 3.5, 1.4, 0.2]]}
    inputs = to_inputs(prepared.schema.example["data"], prepared.schema)
    assert _predictor(prepared, tmp_path).predict(inputs)["predictions"].tolist() == [0]
    assert msgspec.json.decode(msgspec.json.encode(prepared), type=Prepared) == prepared


def test_a_table_has_records_as_example(tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": IRIS[:, 0], "town": np.array(["oslo", "rome", "bern"])[SPECIES]})
    table = ColumnTransformer([("n", StandardScaler(), ["size"]), ("t", OneHotEncoder(), ["town"])])
    joblib.dump(make_pipeline(table, LogisticRegression()).fit(frame, SPECIES), tmp_path / "m.pkl")
    prepared = prepare(tmp_path / "m.pkl", tmp_path / "out", trust=TRUSTED)
    assert prepared.serves == "compiled"
    assert prepared.schema.layout == "table"
    assert prepared.schema.example is not None
    (record,) = prepared.schema.example["data"]
    assert set(record) == {"size", "town"}
    assert record["town"] in ("oslo", "rome", "bern")
    inputs = to_inputs([record], prepared.schema)
    answer = _predictor(prepared, tmp_path / "out").predict(inputs)
    assert answer["probabilities"].shape == (1, 3)


def test_a_model_without_compiled_form_serves_as_it_is(tmp_path: Path) -> None:
    model = make_pipeline(HashingVectorizer(n_features=16), LogisticRegression())
    joblib.dump(model.fit(["a b", "c d"], [0, 1]), tmp_path / "m.joblib")
    prepared = prepare(tmp_path / "m.joblib", tmp_path / "out", trust=TRUSTED)
    assert (prepared.runtime, prepared.serves) == ("sklearn", "original")
    assert prepared.requirements == prepared.native_requirements != ()
    assert prepared.compilation is not None
    assert "HashingVectorizer" in prepared.compilation.reason
    assert prepared.schema.example is not None
    assert not (tmp_path / "out").exists()


def test_the_tolerance_is_the_users(logistic: Path, tmp_path: Path) -> None:
    prepared = prepare(logistic, tmp_path, trust=TRUSTED, tolerance=0.0)
    assert prepared.compilation is not None
    assert prepared.compilation.tolerance == 0.0
    assert prepared.serves == "original"


def test_a_model_in_a_folder_is_named_from_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "registered"
    (folder / "inner").mkdir(parents=True)
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(IRIS, SPECIES), 2)
    booster.save_model(folder / "inner" / "model.ubj")
    prepared = prepare(folder, tmp_path / "out", trust=Trust())
    assert prepared.primary == "inner/model.ubj"
    assert prepared.serves == "compiled"
    assert not prepared.pickle_trusted


def test_a_sample_from_a_file(logistic: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("5,3,1,0.25\n6,3,5,2\n")
    for sample in (path, str(path)):
        prepared = prepare(logistic, tmp_path, trust=TRUSTED, sample=sample)
        assert prepared.schema.example == {"data": [[5.0, 3.0, 1.0, 0.25]]}


def test_trust_and_samples_are_checked(logistic: Path, tmp_path: Path) -> None:
    with pytest.raises(UntrustedModelError):
        prepare(logistic, tmp_path, trust=Trust())
    with pytest.raises(WrongShapeError):
        prepare(logistic, tmp_path, trust=TRUSTED, sample=[[1, 2]])


def _onnx(path: Path, size: int = 4) -> Path:
    weights = np.full((4, size), 0.5, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "w"], ["answers"])],
        "g",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, [None, size])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("run", [prepare, prepare_isolated])
def test_onnx_is_served_as_it_is(run: Any, tmp_path: Path) -> None:
    prepared = run(_onnx(tmp_path / "m.onnx"), tmp_path / "out", trust=Trust())
    assert (prepared.runtime, prepared.serves, prepared.requirements) == ("onnx", "original", ())
    assert prepared.compilation is None
    assert prepared.schema.example is not None
    assert np.shape(prepared.schema.example["data"]) == (1, 4)
    assert not (tmp_path / "out").exists()


def test_preparing_onnx_imports_neither_frameworks_nor_the_onnx_package(tmp_path: Path) -> None:
    path = _onnx(tmp_path / "m.onnx")
    program = (
        "import sys; from pathlib import Path\n"
        "from scoring.prepare import prepare_isolated; from scoring.formats.base import Trust\n"
        "prepare_isolated(Path(sys.argv[1]), Path(sys.argv[2]), trust=Trust())\n"
        "heavy = {'onnx', 'sklearn', 'pandas', 'scipy', 'skl2onnx', 'google.protobuf', 'xgboost'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path / "out")],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
