"""Compressed request bodies, and bombs."""

from __future__ import annotations

import gzip
import zlib

import pytest

from scoring.errors import MalformedPayloadError, PayloadTooLargeError, UnsupportedMediaTypeError
from scoring.payload.coding import decode

BODY = b'{"data": [[1.0, 2.0]]}' * 50


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def gzipped(body: bytes) -> bytes:
    """Without the time: the bytes name the tests, whose names must not change."""
    return gzip.compress(body, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzipped(BODY)),
        ("x-gzip", gzipped(BODY)),
        ("GZIP", gzipped(BODY)),
        ("gzip", gzipped(BODY[:100]) + gzipped(BODY[100:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
        ("identity", BODY),
        ("", BODY),
        ("deflate, gzip", gzipped(zlib.compress(BODY))),
        ("identity, gzip", gzipped(BODY)),
    ],
)
def test_known_codings_are_undone(encoding: str, packed: bytes) -> None:
    assert decode(packed, encoding, len(BODY)) == BODY
    assert decode(bytearray(packed), encoding, len(BODY)) == BODY


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "gzip, gzip, gzip", "g zip"])
def test_other_codings_are_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaTypeError, match="encoding"):
        decode(BODY, encoding, 1 << 20)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzipped(BODY)[:-1]),
        ("gzip", gzipped(BODY)[:20]),
        ("gzip", b"not gzip"),
        ("gzip", gzipped(BODY) + b"tail"),
        ("gzip", gzipped(b"") * 100),
        ("deflate", zlib.compress(BODY)[:-1]),
        ("deflate", zlib.compress(BODY) + b"tail"),
        ("deflate", b"x\x9cgarbage"),
        ("deflate", b""),
    ],
)
def test_broken_bodies_are_malformed(encoding: str, packed: bytes) -> None:
    with pytest.raises(MalformedPayloadError):
        decode(packed, encoding, 1 << 20)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
def test_bombs_are_stopped_at_the_limit(pack: object) -> None:
    assert callable(pack)
    bomb = pack(b"\0" * (20 << 20))
    encoding = "gzip" if pack is gzip.compress else "deflate"
    with pytest.raises(PayloadTooLargeError):
        decode(bomb, encoding, 1 << 20)


def test_members_count_together() -> None:
    half = gzip.compress(b"x" * 600)
    with pytest.raises(PayloadTooLargeError):
        decode(half + half, "gzip", 1000)
    assert len(decode(half + half, "gzip", 1200)) == 1200
