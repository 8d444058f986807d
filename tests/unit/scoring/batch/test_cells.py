"""Cells of CSV: what a column's type makes of their text."""

from __future__ import annotations

from typing import Any

import pytest

from scoring.batch.cells import plain, required, value_of
from scoring.errors import MissingValueError, WrongTypeError
from scoring.schema import DType, TensorSpec


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        ("float64", " 1e3 ", 1000.0),
        ("float32", "NA", None),
        ("int64", "9223372036854775807", 2**63 - 1),
        ("int64", "3.0", 3.0),
        ("int8", "", None),
        ("bool", "TRUE", True),
        ("bool", "0", False),
        ("string", "NA", "NA"),
        ("string", "007", "007"),
        ("string", "", None),
    ],
)
def test_values(dtype: DType, text: str, value: Any) -> None:
    found = value_of(text, TensorSpec("x", dtype, (None,)))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("dtype", "text"), [("float64", "1_0"), ("int64", "ten"), ("bool", "yes"), ("float32", "1,5")]
)
def test_what_is_none_is_refused(dtype: DType, text: str) -> None:
    with pytest.raises(WrongTypeError, match="is wanted"):
        value_of(text, TensorSpec("x", dtype, (None,)))


def test_missing_cells() -> None:
    assert required(None, TensorSpec("x", "float32", (None,), missing=True)) is None
    with pytest.raises(MissingValueError):
        required(None, TensorSpec("x", "float32", (None,)))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-2.50", -2.5), ("1e3", 1000.0), ("007", "007"), ("", None), ("true", True)],
)
def test_cells_for_scripts(text: str, value: Any) -> None:
    found = plain(text)
    assert (found, type(found)) == (value, type(value))
