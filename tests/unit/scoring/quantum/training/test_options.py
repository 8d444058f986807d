"""Options: the library's names and defaults."""

from __future__ import annotations

from typing import Any

import pytest

from scoring.errors import TrainingDataError
from scoring.quantum.training.options import TrainingOptions, from_qsharp


def test_the_librarys_defaults() -> None:
    options = TrainingOptions()
    assert (options.learning_rate, options.tolerance, options.minibatch_size) == (0.1, 0.005, 15)
    assert (options.n_measurements, options.max_epochs, options.max_stalls) == (10_000, 16, 8)
    assert (options.stochastic_rescale_factor, options.scoring_period) == (0.01, 1)


def test_options_by_their_q_sharp_names() -> None:
    options = from_qsharp({"LearningRate": 0.4, "NMeasurements": 100_000, "VerboseMessage": print})
    assert options == TrainingOptions(learning_rate=0.4, n_measurements=100_000)
    for name in ("LearningSpeed", "learning_rate"):
        with pytest.raises(TrainingDataError, match=name):
            from_qsharp({name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("learning_rate", value) for value in (0, -1.0, float("inf"), float("nan"), "0.1")),
        ("tolerance", None),
        ("stochastic_rescale_factor", -0.1),
        *(("max_epochs", value) for value in (-1, 2.5, "3")),
        ("minibatch_size", 0),
        ("patience", 0.5),
    ],
)
def test_what_options_cannot_be(name: str, value: Any) -> None:
    with pytest.raises(TrainingDataError, match=f"{name} is .*; it has to be a ") as told:
        TrainingOptions(**{name: value})
    assert told.value.where == name


@pytest.mark.parametrize(
    ("optimizer", "bias", "rule"),
    [("library", "auto", "library"), ("adam", "auto", "trained"), ("adam", "best", "best")],
)
def test_what_auto_stands_for(optimizer: str, bias: str, rule: str) -> None:
    assert TrainingOptions(optimizer=optimizer, bias=bias).bias_rule == rule
