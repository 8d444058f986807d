from __future__ import annotations

import numpy as np
import pytest

from scoring.compilation.compare import Agreement, compare, difference
from scoring.schema import ModelSchema, TensorSpec

CLASSIFIER = ModelSchema(
    inputs=(TensorSpec("X", "float64", (None, 1)),),
    outputs=(
        TensorSpec("predictions", "string", (None,)),
        TensorSpec("probabilities", "float64", (None, 2)),
    ),
    classes=("a", "b"),
)
REGRESSOR = ModelSchema(
    inputs=CLASSIFIER.inputs, outputs=(TensorSpec("predictions", "float64", (None,)),)
)
LABELS = np.array(["a", "b", "b"], dtype=object)
CHANCES = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])


def test_equal_answers_agree() -> None:
    answer = {"predictions": LABELS, "probabilities": CHANCES}
    assert compare(CLASSIFIER, answer, answer) == Agreement(rows=3, labels=3)


def test_labels_are_counted_and_probabilities_measured() -> None:
    other = {
        "predictions": np.array(["a", "a", "b"], dtype=object),
        "probabilities": CHANCES + np.array([0.001, -0.001]),
    }
    found = compare(CLASSIFIER, {"predictions": LABELS, "probabilities": CHANCES}, other)
    assert (found.labels, found.label_mismatches) == (3, 1)
    assert found.max_difference == pytest.approx(0.001)
    assert not found.within(1.0)


def test_values_over_one_are_measured_relative_to_their_size() -> None:
    found = compare(
        REGRESSOR,
        {"predictions": np.array([2e6, 0.001])},
        {"predictions": np.array([2e6 + 2, 0.001 + 1e-7], dtype=np.float64)},
    )
    assert found.max_difference == pytest.approx(1e-6)
    assert found.labels == 0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([1.0, 1.0], [np.inf, 1.0], np.inf),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([], [], 0.0),
    ],
)
def test_what_is_not_finite_agrees_with_itself_only(
    one: list[float], other: list[float], expected: float
) -> None:
    assert difference(np.array(one), np.array(other)) == expected


def test_other_shapes_disagree() -> None:
    found = compare(
        REGRESSOR, {"predictions": np.ones(3)}, {"predictions": np.ones((3, 1), np.float32)}
    )
    assert found.max_difference == np.inf


def test_agreements_add_up() -> None:
    total = Agreement(2, 2, 1, 0.5) + Agreement(3, 0, 0, 0.25)
    assert total == Agreement(5, 2, 1, 0.5)
