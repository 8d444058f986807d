from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import subprocess
import sys
import uuid
from collections import namedtuple
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scoring.azureml.outputs import dumper, dumps


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float


Pair = namedtuple("Pair", "a b")  # noqa: PYI024  -- as scripts write it


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {}),
        ("text", "text"),
        ('{"a": 1}', '{"a": 1}'),
        ("süß \U0001f600", "süß \U0001f600"),
        ("\ud800", "\ud800"),
        (np.array([[1.0, 2.0]]), [[1.0, 2.0]]),
        (np.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (np.array([1, 2], dtype=">i4"), [1, 2]),
        (np.array(3), 3),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, None], dtype=object), [1, None]),
        (np.array([0.5], dtype="f2"), [0.5]),
        (np.ma.array([1, 2], mask=[False, True]), [1, None]),
        (np.float64(1.5), 1.5),
        (np.float32(0.1), 0.1),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.longdouble(1.5), 1.5),
        (np.array([1.5], dtype=np.longdouble), [1.5]),
        (np.datetime64("2024-01-02T03:04:05"), "2024-01-02T03:04:05"),
        ({np.int64(3): np.float32(0.5)}, {"3": 0.5}),
        ({1: "a", 2.5: "b", None: "c"}, {"1": "a", "2.5": "b", "null": "c"}),
        ([float("nan"), float("inf"), np.nan], [None, None, None]),
        ({1: float("nan")}, {"1": None}),
        (np.array([np.nan, 1]), [None, 1.0]),
        (2**80, 2**80),
        ([2**80, np.array([1.0]), {3}], [2**80, [1.0], [3]]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.DataFrame({"a": [1], "b": ["x"]}), [{"a": 1, "b": "x"}]),
        (pd.Timestamp("2024-01-02"), "2024-01-02T00:00:00"),
        ([pd.NaT, pd.NA], [None, None]),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (dt.timedelta(seconds=90), 90.0),
        (decimal.Decimal("1.5"), 1.5),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (Colour.RED, "red"),
        (Point(1, 2.0), {"x": 1, "y": 2.0}),
        (Pair(1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (PurePosixPath("a/b"), "a/b"),
    ],
)
def test_what_scripts_return_is_json(value: Any, expected: Any) -> None:
    assert json.loads(dumps(value)) == expected


def test_deep_nesting_is_encoded() -> None:
    value: list[Any] = []
    for _ in range(300):
        value = [value]
    assert dumps(value) == b"[" * 301 + b"]" * 301


@pytest.mark.parametrize("value", [b"raw", {(1, 2): 3}, object(), [1j], np.array([1j])])
def test_what_has_no_json_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        dumps(value)


def test_a_cycle_is_an_error_and_no_crash() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises((RecursionError, ValueError, TypeError)):
        dumps(value)


@pytest.mark.parametrize("value", [[1, {"ä": None}], "ä", float("nan"), {1: 2}, None])
def test_strict_is_json_dumps_to_the_byte(value: Any) -> None:
    assert dumper(strict=True)(value) == json.dumps({} if value is None else value).encode()


def test_strict_knows_no_arrays() -> None:
    with pytest.raises(TypeError):
        dumper(strict=True)(np.array([1]))


def test_numpy_is_not_imported_for_those_who_do_not_use_it() -> None:
    code = (
        "import sys; from scoring.azureml.outputs import dumps;"
        "print(dumps([{1}, (2,), {3: 4}]).decode(), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == '[[1],[2],{"3":4}] False\n'
