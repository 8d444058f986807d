"""Binary tensors."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scoring.errors import InputError, WrongShapeError, WrongTypeError
from serve.server.v2.datatypes import BY_SCHEMA
from serve.server.v2.tensors import from_raw, to_raw
from tests.support.oip import DTYPES, samples

if TYPE_CHECKING:
    from scoring.schema import DType


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_datatype_comes_back(dtype: DType) -> None:
    array = samples(dtype)
    raw = to_raw(array)
    back = from_raw(raw, BY_SCHEMA[dtype], array.shape, "inputs[0]")
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist()


def test_numbers_are_not_copied() -> None:
    raw = np.arange(6, dtype=np.float32).tobytes()
    assert not from_raw(raw, "FP32", [2, 3], "x").flags.owndata


def test_numbers_may_lie_at_an_odd_place() -> None:
    raw = memoryview(b"\0" + np.arange(6, dtype=np.float32).tobytes())[1:]
    array = from_raw(raw, "FP32", [6], "x")
    assert array.tolist() == [0, 1, 2, 3, 4, 5]


def test_other_byte_orders_are_sent_as_little_endian() -> None:
    assert to_raw(np.array([1], dtype=">i4")) == b"\1\0\0\0"


def test_bf16_is_widened() -> None:
    values = np.array([1.0, -2.5, np.inf, 0.0], dtype=np.float32)
    raw = (values.view("<u4") >> 16).astype("<u2").tobytes()
    array = from_raw(raw, "BF16", [4], "x")
    assert array.dtype == np.float32
    assert array.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("raw", "datatype", "shape", "error", "words"),
    [
        pytest.param(b"\0" * 7, "FP32", [2], WrongShapeError, "has 7 bytes", id="short"),
        pytest.param(b"\0" * 9, "FP32", [2], WrongShapeError, "takes 8", id="long"),
        pytest.param(b"\0" * 8, "INT64", [2**62, 2**62], WrongShapeError, "takes", id="huge"),
        pytest.param(b"\2", "BOOL", [1], WrongTypeError, "0 or 1", id="boolean"),
        pytest.param(b"\1\0\0", "BYTES", [1], WrongShapeError, "too few", id="length cut off"),
        pytest.param(b"\5\0\0\0ab", "BYTES", [1], WrongShapeError, "element 0 of 1", id="cut off"),
        pytest.param(b"\0" * 8, "BYTES", [1], WrongShapeError, "behind its 1", id="rest"),
        pytest.param(b"\xff" * 4, "BYTES", [1], WrongShapeError, "element 0", id="4 GiB"),
        pytest.param(b"\0" * 8, "BYTES", [2**40], WrongShapeError, "too few", id="many strings"),
        pytest.param(
            b"\1\0\0\0a\2\0\0\0\xc3\x28", "BYTES", [2], WrongTypeError, "element 1,", id="latin"
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    raw: bytes, datatype: str, shape: list[int], error: type[InputError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        from_raw(raw, datatype, shape, "inputs[3]")
    assert "inputs[3]" in caught.value.message


def test_strings_are_sent_behind_their_lengths() -> None:
    values: Any = np.array(["é", b"\xff", None, 5], dtype=object)
    wanted = b"".join(struct.pack("<I", len(v)) + v for v in ("é".encode(), b"\xff", b"", b"5"))
    assert to_raw(values) == wanted
