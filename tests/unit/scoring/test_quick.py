"""The short ways from a body to an array: they give what the long way gives, or nothing at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from scoring.payload import Codec
from scoring.payload.quick import has_lists, quick_decoder
from scoring.schema import ModelSchema, TensorSpec

ROWS, COLUMNS = 200, 20


def codec(dtype: Any = "float32", columns: int = COLUMNS) -> Codec:
    spec = TensorSpec("x", dtype, (None, columns))
    return Codec(ModelSchema((spec,), (TensorSpec("y", "float32", (None,)),)))


def rows(*, count: int = ROWS) -> list[list[float]]:
    generator = np.random.default_rng(0)
    values: list[list[float]] = (generator.standard_normal((count, COLUMNS)) * 1e3).tolist()
    return values


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, ROWS], ids=["small", "large"])
def test_numbers_are_those_of_the_long_way(dtype: str, count: int) -> None:
    body = orjson.dumps({"data": rows(count=count)})
    made = codec(dtype)
    quick = made.quick(body)
    assert quick is not None
    long = made.decode(body).inputs["x"]
    assert quick["x"].dtype == long.dtype
    np.testing.assert_array_equal(quick["x"], long)
    again = made.quick(bytearray(body))
    assert again is not None
    np.testing.assert_array_equal(again["x"], long)


def broken(change: Any) -> bytes:
    document: dict[str, Any] = {"data": rows()}
    change(document)
    return orjson.dumps(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["data"][7].__setitem__(3, True),
        lambda d: d["data"][7].__setitem__(3, None),
        lambda d: d["data"][7].__setitem__(3, "1"),
        lambda d: d["data"][7].__setitem__(3, [1.0]),
        lambda d: d["data"][7].__setitem__(3, []),
        lambda d: d["data"][7].__setitem__(3, 1e39),
        lambda d: d["data"][7].__setitem__(3, -1e300),
        lambda d: d["data"][7].append(1.0),
        lambda d: d["data"][7].pop(),
        lambda d: (d["data"][7].append(1.0), d["data"][8].pop()),
        lambda d: d["data"].append(3.0),
        lambda d: d["data"].append({}),
        lambda d: d.update(other=1),
        lambda d: d.update(data=[d["data"]]),
        lambda d: d.update(data={"x": d["data"]}),
    ],
)
def test_what_is_in_doubt_is_left_to_the_long_way(change: Any) -> None:
    assert codec().quick(broken(change)) is None


@pytest.mark.parametrize("cut", [1, 2, 100, 5000])
def test_cut_off_bodies_are_left_to_the_long_way(cut: int) -> None:
    assert codec().quick(orjson.dumps({"data": rows()})[:-cut]) is None


def test_of_two_values_of_one_name_the_last_one_counts() -> None:
    first, second = orjson.dumps(rows()), orjson.dumps([[1.0] * COLUMNS] * ROWS)
    quick = codec().quick(b'{"data":' + first + b',"data":' + second + b"}")
    assert quick is not None
    assert (quick["x"] == 1).all()


def test_whole_numbers_are_numbers() -> None:
    body = orjson.dumps({"data": [[n] * COLUMNS for n in range(ROWS)]})
    quick = codec().quick(body)
    assert quick is not None
    assert quick["x"][:, 0].tolist() == [float(n) for n in range(ROWS)]


def test_other_models_have_no_short_way() -> None:
    for spec in (
        TensorSpec("x", "int64", (None, 2)),
        TensorSpec("x", "float32", (None, None)),
        TensorSpec("x", "float32", (1, 2)),
        TensorSpec("x", "string", (None, 2)),
    ):
        assert quick_decoder(ModelSchema((spec,), ()))(b'{"data":[[1,2]]}') is None


@pytest.mark.parametrize(("body", "count"), [(b"[[]]", 2), (b"[", 1), (b"", 0), (b"[[[", 3)])
def test_lists_are_counted_exactly(body: bytes, count: int) -> None:
    assert has_lists(body, count)
    assert not has_lists(body, count + 1)
    assert count == 0 or not has_lists(body, count - 1)
