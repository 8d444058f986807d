"""Protobuf's wire format, beside the library's."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import (
    BytesValue,
    DoubleValue,
    Int64Value,
    StringValue,
    UInt64Value,
)

from serve.server.telemetry import protowire
from serve.server.telemetry.protowire import LENGTH, VARINT, WireError, fields, key

INT, BYTES = key(1, VARINT), key(1, LENGTH)


@pytest.mark.parametrize(
    "number", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -128, -(2**63)], ids=str
)
def test_integers(number: int) -> None:
    written = protowire.integer(INT, number)
    assert written == Int64Value(value=number).SerializeToString()
    if number:
        assert list(fields(written)) == [(1, number % 2**64)]


def test_integers_without_a_sign() -> None:
    written = protowire.integer(INT, 2**64 - 1)
    assert written == UInt64Value(value=2**64 - 1).SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_bytes_and_text(size: int) -> None:
    data = b"x" * size
    written = BytesValue(value=data).SerializeToString()
    assert (protowire.chunk(BYTES, data) if size else b"") == written
    assert (
        protowire.text(BYTES, data.decode()) == StringValue(value=data.decode()).SerializeToString()
    )
    if size:
        assert list(fields(written)) == [(1, data)]


def test_text_that_is_no_unicode_is_no_error() -> None:
    assert protowire.text(BYTES, "a\ud800b") == protowire.text(BYTES, "a?b")


@pytest.mark.parametrize("number", [0.5, -1e300, float("inf")])
def test_fractions(number: float) -> None:
    written = protowire.double(key(1, protowire.FIXED64), number)
    assert written == DoubleValue(value=number).SerializeToString()
    assert len(dict(fields(written))) == 1


def test_fields_of_32_bits_are_passed_over() -> None:
    data = protowire.fixed32(key(9, protowire.FIXED32), 7) + protowire.integer(INT, 1)
    assert list(fields(data)) == [(9, b"\x07\0\0\0"), (1, 1)]


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x0a\x05ab", b"\x80" * 11, b"\x09\0\0", b"\x0b", b"\x0a" + b"\xff" * 9 + b"\x01"],
    ids=["no value", "short", "endless", "short fixed", "group", "huge"],
)
def test_what_is_no_message_is_said(data: bytes) -> None:
    with pytest.raises(WireError):
        list(fields(data))
