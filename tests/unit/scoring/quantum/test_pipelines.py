"""Pipelines of scalers as circuits: the same answers, without scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from scoring.errors import UnsupportedModelError
from scoring.quantum import simulate
from scoring.quantum.classifier import SequentialClassifier
from scoring.quantum.pipelines import is_trained, model_of

ROWS = np.random.default_rng(0).normal(2, 3, (40, 3))
LABELS = np.arange(40) % 3


def quick() -> SequentialClassifier:
    return SequentialClassifier("local-y cyclic-z local-y", epochs=1, starts=1, random_state=0)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [StandardScaler()],
        [StandardScaler(with_mean=False)],
        [StandardScaler(with_std=False)],
        [RobustScaler()],
        [RobustScaler(with_centering=False, with_scaling=False)],
        [MaxAbsScaler(), MinMaxScaler((-1, 2))],
        ["passthrough"],
    ],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_circuit_answers_as_the_pipeline(steps: list[Any], classes: int) -> None:
    piped = make_pipeline(*steps, quick()).fit(ROWS, np.minimum(LABELS, classes - 1))
    assert is_trained(piped)
    found = simulate.class_probabilities(model_of(piped), ROWS)
    assert np.abs(found - piped.predict_proba(ROWS)).max() < 1e-12


def test_what_cannot_be_part_of_a_circuit() -> None:
    piped = make_pipeline(PCA(2), quick()).fit(ROWS, LABELS)
    with pytest.raises(UnsupportedModelError, match="step PCA cannot"):
        model_of(piped)
    clipped = make_pipeline(MinMaxScaler(clip=True), quick()).fit(ROWS, LABELS)
    with pytest.raises(UnsupportedModelError, match="MinMaxScaler"):
        model_of(clipped)


def test_what_is_no_fitted_classifier() -> None:
    with pytest.raises(UnsupportedModelError, match="no classifier of circuits that was fitted"):
        model_of(quick())
    assert not is_trained(quick())
    assert not is_trained(LogisticRegression())
