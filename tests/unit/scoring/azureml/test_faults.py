from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

from scoring.azureml.faults import find_fault
from scoring.errors import InputError, UnknownInputError, WrongShapeError, WrongTypeError

ROW = {"age": 1, "city": "Oslo"}


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        (3, "data", WrongShapeError),
        ({"a": 1}, "data", WrongShapeError),
        ([1, 2], "data[0]", WrongShapeError),
        ([[1, 2, 3], [1, 2]], "data[1]", WrongShapeError),
        ([[1, 2, [3]]], "data[0][2]", WrongShapeError),
        ([[1, 2, 3], [1, "x", 3]], "data[1][1]", WrongTypeError),
        ([[1, 2, {"a": 1}]], "data[0][2]", WrongTypeError),
    ],
)
def test_the_first_place_of_an_array_that_does_not_fit(
    value: Any, where: str, kind: type[InputError]
) -> None:
    fault = find_fault(value, NumpyParameterType(np.zeros((2, 3))), "data")
    assert type(fault) is kind
    assert fault.where == where
    assert fault.message.startswith(where)


def test_arrays_of_any_shape_are_only_asked_for_their_values() -> None:
    parameter = NumpyParameterType(np.zeros((2, 3)), enforce_shape=False)
    fault = find_fault([[1], [2, "x"]], parameter, "data")
    assert fault is not None
    assert fault.where == "data[1][1]"
    assert find_fault([[1], [2]], parameter, "data") is None


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        (3, "data", WrongTypeError),
        ([3], "data[0]", WrongTypeError),
        ([ROW, {"age": 1}], "data[1]", UnknownInputError),
        ([ROW | {"more": 1}], "data[0]", UnknownInputError),
        ([ROW, ROW | {"age": "x"}], "data[1].age", WrongTypeError),
    ],
)
def test_the_first_place_of_a_table_that_does_not_fit(
    value: Any, where: str, kind: type[InputError]
) -> None:
    parameter = PandasParameterType(pd.DataFrame([ROW]))
    fault = find_fault(value, parameter, "data")
    assert type(fault) is kind
    assert fault.where == where


def test_column_names_are_in_the_message() -> None:
    parameter = PandasParameterType(pd.DataFrame([ROW]))
    fault = find_fault([{"age": 1, "town": 2}], parameter, "data")
    assert fault is not None
    assert "'city'" in fault.message


@pytest.mark.parametrize(
    ("sample", "value", "message"),
    [
        ("text", 3, "p must be text, not an integer."),
        (1, "3", "p must be an integer, not text."),
        (1.5, None, "p must be a number, not null."),
        ({"a": 1}, [], "p must be an object, not a list."),
        ([1], {}, "p must be a list, not an object."),
        (True, 1, "p must be true or false, not an integer."),
    ],
)
def test_plain_values_are_named_as_json_names_them(sample: Any, value: Any, message: str) -> None:
    fault = find_fault(value, StandardPythonParameterType(sample), "p")
    assert fault is not None
    assert fault.message == message


def test_what_cannot_be_told_is_not_guessed() -> None:
    structured = NumpyParameterType(np.zeros(1, dtype=[("a", int)]))
    assert find_fault([{"a": "x"}], structured, "data") is None
    split = PandasParameterType(pd.DataFrame([ROW]), orient="split")
    assert find_fault({"columns": []}, split, "data") is None
