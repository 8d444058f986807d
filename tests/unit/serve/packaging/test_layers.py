from __future__ import annotations

import gzip
import hashlib
import random
import subprocess
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from serve.packaging.layers import (
    BALANCED,
    FAST,
    FORMAT_VERSION,
    MEMBER_BYTES,
    gzip_members,
    write_layer,
)
from serve.packaging.tarball import FileEntry

if TYPE_CHECKING:
    from pathlib import Path

    from serve.registry.blobs import BlobStore

NOISE = random.Random(0).randbytes(3 * MEMBER_BYTES // 2)


@pytest.mark.parametrize("piece_bytes", [1000, MEMBER_BYTES, 2 * MEMBER_BYTES])
def test_the_size_of_pieces_does_not_matter(piece_bytes: int) -> None:
    pieces = (NOISE[at : at + piece_bytes] for at in range(0, len(NOISE), piece_bytes))
    members = list(gzip_members(pieces, FAST))
    assert members == list(gzip_members([NOISE], FAST))
    assert len(members) == 2
    assert gzip.decompress(b"".join(members)) == NOISE


def test_an_empty_stream_has_no_members() -> None:
    assert list(gzip_members([], BALANCED)) == []


@pytest.mark.parametrize("level", [BALANCED, FAST])
def test_compressed_bytes_are_those_of_this_format_version(level: int) -> None:
    # Another libdeflate may compress to other bytes, which would give packages other digests.
    # Then raise FORMAT_VERSION, and pin `deflate` to the versions that give the new ones.
    text = " ".join(str(number * number) for number in range(200_000)).encode()
    packed = b"".join(gzip_members([text], level))
    assert FORMAT_VERSION == 1
    assert (
        hashlib.sha256(packed).hexdigest()
        == {
            BALANCED: "2421b3661858f78397acee1efe1c44bb32024cb275d529bcff8eafde6268e5d0",
            FAST: "0b4e12471268ef6988be856842e4acbfad0eb5cacdec0c2bc22b389169514879",
        }[level]
    )


def test_the_standard_tools_read_a_layer(tmp_path: Path, blobs: BlobStore) -> None:
    entries = [FileEntry.from_bytes(f"opt/{name}", NOISE) for name in ("one", "two")]
    layer = write_layer(entries, blobs)
    path = blobs.path(layer.digest)
    with path.open("rb") as file:
        subprocess.run(["gzip", "-t"], stdin=file, check=True)
    listed = subprocess.run(["tar", "tzf", path], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["opt/", "opt/one", "opt/two"]
    content = gzip.decompress(path.read_bytes())
    assert layer.diff_id == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (layer.unpacked_size, layer.size) == (len(content), path.stat().st_size)


def test_memory_does_not_grow_with_the_model(tmp_path: Path, blobs: BlobStore) -> None:
    file = tmp_path / "model.onnx"
    with file.open("wb") as out:
        out.truncate(300 << 20)
    tracemalloc.start()
    try:
        write_layer([FileEntry.from_file("model.onnx", file)], blobs, level=FAST)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 << 20
