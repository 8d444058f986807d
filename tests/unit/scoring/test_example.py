from __future__ import annotations

import json
from typing import Any

import numpy as np

from scoring.example import with_example
from scoring.schema import ModelSchema, TensorSpec

MATRIX = ModelSchema(inputs=(TensorSpec("X", "float32", (None, 2)),), outputs=())


def _accept(_: Any) -> None:
    pass


def test_numbers_are_written_as_a_person_would() -> None:
    rows = {"X": np.array([[5.1, 1234.56789]], dtype=np.float32)}
    assert with_example(MATRIX, [rows], _accept).example == {"data": [[5.1, 1235.0]]}


def test_the_first_complete_row_is_taken() -> None:
    rows = {"X": np.array([[np.nan, 1], [np.inf, 1], [2, 3], [4, 5]])}
    assert with_example(MATRIX, [rows], _accept).example == {"data": [[2.0, 3.0]]}


def test_a_table_gives_records_and_missing_values_null() -> None:
    schema = ModelSchema(
        inputs=(
            TensorSpec("age", "float64", (None, 1), missing=True),
            TensorSpec("town", "string", (None, 1), missing=True),
            TensorSpec("member", "bool", (None, 1)),
        ),
        outputs=(),
        layout="table",
    )
    rows = {
        "age": np.array([[np.nan]]),
        "town": np.array([[None]], dtype=object),
        "member": np.array([[True]]),
    }
    example = with_example(schema, [rows], _accept).example
    assert example == {"data": [{"age": None, "town": None, "member": True}]}
    assert json.loads(json.dumps(example)) == example


def test_several_inputs_are_named() -> None:
    schema = ModelSchema(
        inputs=(TensorSpec("a", "float32", (None, 2)), TensorSpec("n", "int64", (None,))),
        outputs=(),
    )
    rows = {"a": np.array([[0.5, 1.5]]), "n": np.array([7])}
    example = with_example(schema, [rows], _accept).example
    assert example == {"inputs": {"a": [[0.5, 1.5]], "n": [7]}}


def test_only_a_row_that_is_answered_becomes_the_example() -> None:
    def predict(inputs: Any) -> None:
        if inputs["X"][0, 0] < 0:
            raise ValueError("too small")

    batches = [{"X": np.array([[-1.0, 0.0]])}, {"X": np.array([[1.0, 0.0]])}]
    assert with_example(MATRIX, batches, predict).example == {"data": [[1.0, 0.0]]}


def test_rows_are_made_up_in_the_sizes_that_the_model_takes() -> None:
    schema = ModelSchema(
        inputs=(TensorSpec("image", "float32", (None, 1, None, None)),), outputs=()
    )

    def predict(inputs: Any) -> None:
        if inputs["image"].shape != (1, 1, 8, 8):
            raise ValueError("wrong size")

    example = with_example(schema, [], predict).example
    assert example is not None
    assert np.shape(example["data"]) == (1, 1, 8, 8)


def test_no_example_where_nothing_is_answered_or_it_is_too_large() -> None:
    def refuse(_: Any) -> None:
        raise ValueError("never")

    assert with_example(MATRIX, [], refuse).example is None
    large = ModelSchema(inputs=(TensorSpec("image", "float32", (None, 3, 224, 224)),), outputs=())
    assert with_example(large, [], _accept).example is None


def test_a_fixed_batch_stays_whole() -> None:
    schema = ModelSchema(inputs=(TensorSpec("X", "int64", (3, 2)),), outputs=())
    example = with_example(schema, [], _accept).example
    assert example == {"data": [[1, 1]] * 3}
