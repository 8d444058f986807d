"""What a model refuses is told with the row that it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scoring.runtimes.refusals import first_refused, is_refusal, refusal
from scoring.schema import ModelSchema, TensorSpec

if TYPE_CHECKING:
    from scoring.runtimes.base import Arrays

OUT = (TensorSpec("y", "float32", (None,)),)
MATRIX = ModelSchema((TensorSpec("x", "float32", (None, 1)),), OUT)
TABLE = ModelSchema(
    (
        TensorSpec("city", "string", (None, 1)),
        TensorSpec("age", "float32", (None, 1)),
        TensorSpec("note", "string", (None, 1), unused=True),
    ),
    OUT,
    layout="table",
)


def answer(inputs: Arrays) -> Any:
    if (inputs["x"] < 0).any():
        raise ValueError("negative")


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64])
def test_the_first_refused_row_is_found_wherever_it_is(rows: int) -> None:
    for bad in range(rows):
        x = np.zeros((rows, 1), np.float32)
        x[bad:] = -1
        assert first_refused({"x": x}, MATRIX, answer) == bad


def test_a_batch_of_fixed_size_has_no_row_to_name() -> None:
    fixed = ModelSchema((TensorSpec("x", "float32", (2, 1)),), OUT)
    x = np.full((2, 1), -1, np.float32)
    assert first_refused({"x": x}, fixed, answer) is None
    assert refusal("negative", {"x": x}, fixed, answer).where == ""


def test_an_unknown_category_shows_the_cells_of_its_row() -> None:
    inputs = {
        "city": np.array([["Ulm"], ["Atlantis"]], dtype=object),
        "age": np.array([[1.0], [2.0]], np.float32),
        "note": np.array([["a"], ["b"]], dtype=object),
    }

    def look_up(part: Arrays) -> None:
        if "Atlantis" in part["city"]:
            raise RuntimeError("Unknown Category and zeros = 0.")

    error = refusal("Unknown Category and zeros = 0.", inputs, TABLE, look_up)
    assert error.message == (
        "Row 1 holds a category that the model was not trained on (city='Atlantis', age=2.0)."
    )
    assert error.where == "row 1"
    named = refusal("Found unknown categories ['Atlantis']", inputs, TABLE, look_up)
    assert named.message.endswith("Found unknown categories ['Atlantis'].")


def test_a_broken_graph_is_no_refusal() -> None:
    assert is_refusal("indices element out of data bounds, idx=9 must be within [-5,4]")
    assert not is_refusal("Could not allocate memory")
