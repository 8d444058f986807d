"""What is in a package loads as it was registered, and answers the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.bundle import Bundle
from scoring.errors import (
    CorruptModelError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
    ScoringFailedError,
    UntrustedModelError,
)
from scoring.formats.base import Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.runtimes import base
from scoring.runtimes.leaves import leaves
from scoring.runtimes.onnx import THREADS_VARIABLE
from scoring.runtimes.threads import threads
from scoring.schema import ModelSchema, TensorSpec


def package(root: Path, path: Path, **more: Any) -> tuple[Path, Bundle]:
    """A root with the model of a file, as a package has it."""
    loaded = load_original(detect(path), Trust(pickle=True))
    (root / "model").mkdir(parents=True)
    shutil.copy(path, root / "model" / "m")
    detection = loaded.detection
    bundle = Bundle(
        name="m",
        runtime=detection.runtime,
        format=detection.format,
        model_path="m",
        **({"schema": loaded.schema} | more),
    )
    return root, bundle


def test_onnx(tmp_path: Path, onnx_file: Path, iris: Any, classifier: Any) -> None:
    predictor = base.load(*package(tmp_path / "a", onnx_file))
    data = iris[0].astype(np.float32)
    assert predictor.predict({"X": data})["label"].tolist() == classifier.predict(data).tolist()
    assert predictor.thread_safe
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda row: predictor.predict({"X": row[None]})["label"][0], data))
    assert answers == classifier.predict(data).tolist()


def test_onnx_without_a_schema_reads_its_own(tmp_path: Path, onnx_file: Path) -> None:
    predictor = base.load(*package(tmp_path / "a", onnx_file, schema=None))
    assert predictor.schema.inputs[0].shape == (None, 4)


def test_onnx_failures_are_ours(tmp_path: Path, onnx_file: Path) -> None:
    predictor = base.load(*package(tmp_path / "a", onnx_file))
    for wrong in (np.zeros((1, 5), np.float32), np.zeros((1, 4)), np.zeros(4, np.float32)):
        with pytest.raises(ScoringFailedError, match="The model failed"):
            predictor.predict({"X": wrong})


def test_onnx_of_another_description(tmp_path: Path, onnx_file: Path) -> None:
    schema = ModelSchema((TensorSpec("Z", "float32", (None, 4)),), ())
    with pytest.raises(CorruptModelError, match="no input or output named Z"):
        base.load(*package(tmp_path / "a", onnx_file, schema=schema))


def test_onnx_takes_none_where_strings_may_be_missing(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(n, TensorProto.STRING, [None, 1]) for n in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    schema = ModelSchema(
        (TensorSpec("x", "string", (None, 1), missing=True),),
        (TensorSpec("y", "string", (None, 1)),),
    )
    predictor = base.load(*package(tmp_path / "a", path, schema=schema))
    answer = predictor.predict({"x": np.array([["a"], [None]], dtype=object)})
    assert answer["y"].tolist() == [["a"], [base.MISSING_STRING]]


def test_sklearn(tmp_path: Path, joblib_file: Path, iris: Any, classifier: Any) -> None:
    root, bundle = package(tmp_path / "a", joblib_file, pickle_trusted=True)
    answer = base.load(root, bundle).predict({"X": iris[0]})
    np.testing.assert_array_equal(answer["probabilities"], classifier.predict_proba(iris[0]))
    refused = np.vstack([iris[0][:5], np.full((1, 4), np.nan)])
    with pytest.raises(InputError, match=r"first in row 5\): Input X contains NaN\.$") as caught:
        base.load(root, bundle).predict({"X": refused})
    assert caught.value.where == "row 5"


def test_a_package_that_does_not_trust_its_pickle(tmp_path: Path, joblib_file: Path) -> None:
    with pytest.raises(UntrustedModelError, match="does not trust"):
        base.load(*package(tmp_path / "a", joblib_file))


@pytest.mark.parametrize("runtime", ["onnx", "sklearn", "lightgbm", "xgboost", "torchscript"])
def test_a_model_that_is_not_there(tmp_path: Path, runtime: Any) -> None:
    for module in {"torchscript": "torch"}.get(runtime, runtime), "numpy":
        pytest.importorskip(module if module not in ("onnx", "sklearn") else "numpy")
    schema = ModelSchema((TensorSpec("X", "float32", (None, 4)),), ())
    bundle = Bundle(
        name="m",
        runtime=runtime,
        format="sklearn-joblib",
        model_path="gone",
        schema=schema,
        pickle_trusted=True,
    )
    with pytest.raises(ModelNotFoundError):
        base.load(tmp_path, bundle)


def test_the_onnx_runtime_imports_no_framework(onnx_file: Path) -> None:
    code = (
        "import sys; import scoring.runtimes.onnx; "
        "bad = {'pandas', 'sklearn', 'scipy', 'torch', 'onnx', 'joblib'}; "
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threads_are_a_setting(monkeypatch: pytest.MonkeyPatch, onnx_file: Path) -> None:
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    assert threads(THREADS_VARIABLE) == 1
    monkeypatch.setenv(THREADS_VARIABLE, "2")
    loaded = load_original(detect(onnx_file), Trust())
    assert loaded.model.get_session_options().intra_op_num_threads == 2
    for wrong in ("many", "-1", "٣", "1.5"):
        monkeypatch.setenv(THREADS_VARIABLE, wrong)
        with pytest.raises(ModelFileError, match=THREADS_VARIABLE):
            threads(THREADS_VARIABLE)


def test_leaves_have_names() -> None:
    from collections import namedtuple

    pair = namedtuple("pair", "mean spread")  # noqa: PYI024 - what frameworks answer
    assert dict(leaves(1)) == {"output": 1}
    assert dict(leaves([1])) == {"output": 1}
    assert dict(leaves((1, None, 3))) == {"output_0": 1, "output_2": 3}
    assert dict(leaves({"a": 1, "b": [2, 3]})) == {"a": 1, "b_0": 2, "b_1": 3}
    assert dict(leaves(pair(1, 2))) == {"mean": 1, "spread": 2}
