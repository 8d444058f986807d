"""What models are asked: looked at now and then, told once, and again where it got lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scoring.profiles import from_dict
from serve.server.telemetry.inputs import InputWatch, profile_of


class Steady:
    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def model(watch: InputWatch) -> Callable[[Any], dict[str, Any]]:
    return watch.watched("iris", "1", lambda inputs: {"y": np.asarray(inputs["x"]).sum(axis=1)})


def rows(page: dict[str, Any]) -> int:
    return sum(profile["rows"] for profile in page["profiles"])


def test_windows_follow_one_another() -> None:
    watch = InputWatch(steady=Steady())
    run = model(watch)
    for _ in range(3):
        assert run({"x": np.ones((2, 3))})["y"].tolist() == [3.0, 3.0]
    first = watch.take(0)
    assert rows(first) == 6
    assert first["samples"] == []
    assert rows(watch.take(first["mark"])) == 0


def test_an_answer_that_got_lost_comes_again() -> None:
    watch = InputWatch(steady=Steady())
    run = model(watch)
    run({"x": np.ones((1, 2))})
    known = watch.take(0)["mark"]
    run({"x": np.ones((2, 2))})
    lost = watch.take(known)
    run({"x": np.ones((4, 2))})
    again = watch.take(known)
    assert (rows(lost), rows(again)) == (2, 6)
    assert again["mark"] == lost["mark"]
    assert rows(watch.take(again["mark"])) == 0


def test_the_profile_is_that_of_the_rows() -> None:
    found = profile_of(
        {
            "x": np.array([[1.0, np.nan], [3.0, 4.0]]),
            "name": np.array(["a", b"b"], object),
            "image": np.zeros((2, 28, 28)),
        }
    )
    assert found.rows == 2
    assert sorted(found.columns) == ["image", "name", "x[0]", "x[1]"]
    assert (found.columns["x[0]"].mean, found.columns["x[1]"].missing) == (2.0, 1)
    assert found.columns["name"].values == {"a": 1, "b": 1}
    assert found.columns["image"].count <= 256
    assert from_dict(found.to_dict()) == found


def test_looks_are_rare_and_samples_few() -> None:
    steady = Steady()
    watch = InputWatch(1.0, steady=lambda: steady.now)
    run = model(watch)
    steady.now = 1.0
    for _ in range(100):
        run({"x": np.ones((1, 2))})
    page = watch.take(0)
    assert rows(page) == 1
    assert page["samples"][0]["inputs"] == {"x": [[1.0, 1.0]]}
    assert page["samples"][0]["outputs"] == {"y": [2.0]}
    for _ in range(100):
        steady.now += 1
        run({"x": np.ones((1, 5000))})
    assert watch.take(0)["samples"] == []


def test_a_look_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    watch = InputWatch(steady=Steady())
    run = watch.watched("odd", "1", lambda inputs: {"y": 1})
    assert run(5) == {"y": 1}
    assert "could not be looked at" in caplog.text
