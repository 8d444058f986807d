"""Models trained once for all tests of formats, runtimes and compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

Data = tuple[NDArray[Any], NDArray[Any]]


@pytest.fixture(scope="session")
def iris() -> Data:
    """The measurements (150, 4) and the species (150,) as numbers."""
    data, species = load_iris(return_X_y=True)
    return data, species


@pytest.fixture(scope="session")
def classifier(iris: Data) -> LogisticRegression:
    """A logistic regression on iris."""
    return LogisticRegression(max_iter=500).fit(*iris)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for model files that many tests read and none changes."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def joblib_file(models: Path, classifier: LogisticRegression) -> Path:
    """The classifier as joblib writes it."""
    path = models / "classifier.joblib"
    joblib.dump(classifier, path)
    return path


@pytest.fixture(scope="session")
def onnx_file(models: Path, classifier: LogisticRegression, iris: Data) -> Path:
    """The classifier as ONNX, with labels and a matrix of probabilities."""
    from skl2onnx import to_onnx

    sample = iris[0][:1].astype(np.float32)
    model = to_onnx(classifier, sample, options={"zipmap": False})
    path = models / "classifier.onnx"
    path.write_bytes(model.SerializeToString())
    return path
