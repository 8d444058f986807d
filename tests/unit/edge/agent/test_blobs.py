"""The blobs of a device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.agent.blobs import Blob, DeviceBlobs
from scoring.errors import DigestMismatchError, InvalidNameError, NotFoundError
from tests.support.blob_source import digest_of

DATA = b"data" * 1000
DIGEST = digest_of(DATA)


@pytest.fixture
def blobs(tmp_path: Path) -> DeviceBlobs:
    return DeviceBlobs(tmp_path / "deep" / "state")


def damage(blobs: DeviceBlobs, digest: str) -> None:
    path = blobs.path(digest)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def test_there_and_back(blobs: DeviceBlobs) -> None:
    assert blobs.put_bytes(DATA) == Blob(DIGEST, len(DATA))
    assert blobs.put_stream(iter((DATA[:5], DATA[5:]))) == Blob(DIGEST, len(DATA))
    assert blobs.has(DIGEST)
    assert blobs.read_bytes(DIGEST) == blobs.path(DIGEST).read_bytes() == DATA
    assert blobs.verify(DIGEST) == Blob(DIGEST, len(DATA))
    assert blobs.digests() == [DIGEST]
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o444
    assert blobs.delete(DIGEST) == len(DATA)
    assert blobs.delete(DIGEST) == 0


def test_what_is_not_there(blobs: DeviceBlobs) -> None:
    for call in (blobs.path, blobs.open, blobs.read_bytes, blobs.verify):
        with pytest.raises(NotFoundError):
            call(DIGEST)
        for bad in ("", "sha256:", "sha256:../../../etc/passwd", DIGEST.upper(), DIGEST + "\n"):
            with pytest.raises(InvalidNameError):
                call(bad)


def test_damage_is_found_and_removed(blobs: DeviceBlobs) -> None:
    for call in (blobs.read_bytes, blobs.verify):
        blobs.put_bytes(DATA)
        damage(blobs, DIGEST)
        with pytest.raises(DigestMismatchError, match="was damaged"):
            call(DIGEST)
        assert not blobs.has(DIGEST)
    blobs.put_bytes(DATA)
    blobs.put_bytes(b"fine")
    damage(blobs, DIGEST)
    assert blobs.remove_damaged([DIGEST, digest_of(b"fine"), digest_of(b"none")]) == [DIGEST]
    assert blobs.digests() == [digest_of(b"fine")]


def test_one_comes_in_parts(blobs: DeviceBlobs) -> None:
    with blobs.incoming(DIGEST, len(DATA)) as incoming:
        incoming.write(DATA[:100])
    assert not blobs.has(DIGEST)
    assert blobs.waiting(DIGEST) == 100
    again = DeviceBlobs(blobs.root)
    with again.incoming(DIGEST, len(DATA)) as incoming:
        assert incoming.received == 100
        incoming.write(DATA[100:])
        assert incoming.finish() == Blob(DIGEST, len(DATA))
    assert again.read_bytes(DIGEST) == DATA
    assert again.waiting(DIGEST) == 0


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA[:-1] + b"x", DATA + b"x"])
def test_one_that_is_another(blobs: DeviceBlobs, data: bytes) -> None:
    def take() -> None:
        with blobs.incoming(DIGEST, len(DATA)) as incoming:
            incoming.write(data)
            incoming.finish()

    with pytest.raises(DigestMismatchError):
        take()
    assert not blobs.has(DIGEST)
    assert blobs.waiting(DIGEST) == 0


def test_cleaning_keeps_what_is_named_and_what_is_on_its_way(blobs: DeviceBlobs) -> None:
    blobs.put_bytes(DATA)
    blobs.put_bytes(b"other")
    for number in (1, 2):
        with blobs.incoming(f"sha256:{number:064x}", 10) as incoming:
            incoming.write(b"x")
    old = blobs.arriving / f"{2:064x}.part"
    os.utime(old, (1, 1))
    (blobs.folder / "no-digest").write_bytes(b"")
    assert blobs.clean({DIGEST}) == len(b"other") + 1
    assert blobs.digests() == [DIGEST]
    assert [path.name for path in blobs.arriving.iterdir()] == [f"{1:064x}.part"]
    blobs.drop_parts(keep={f"sha256:{1:064x}"})
    assert blobs.waiting(f"sha256:{1:064x}") == 1
    blobs.drop_parts()
    assert not list(blobs.arriving.iterdir())
