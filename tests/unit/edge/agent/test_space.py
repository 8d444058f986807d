"""Room on the disk, on a small file system where one can be made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.agent import space
from edge.agent.blobs import DeviceBlobs
from edge.agent.journal import Journal
from scoring.errors import StorageFullError
from tests.support.blob_source import digest_of, noise


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; skipped where none may be made."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(b"x" * 4096)
            except OSError:
                return


def test_what_is_needed_has_to_be_there(tmp_path: Path) -> None:
    space.require(tmp_path, 1000, keep_free=0)
    with pytest.raises(StorageFullError, match="are needed"):
        space.require(tmp_path, 1 << 60)


def test_a_promise_takes_blocks_and_no_length(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        space.promise(file.fileno(), 1 << 20)
        found = os.fstat(file.fileno())
    assert found.st_size == 0
    assert found.st_blocks * 512 in {0, 1 << 20}  # 0 where the file system cannot


def test_a_promise_that_cannot_be_given(small_disk: Path) -> None:
    blobs = DeviceBlobs(small_disk)
    with pytest.raises(StorageFullError):
        blobs.incoming(digest_of(b""), 64 << 20)
    with blobs.incoming(digest_of(noise(1 << 20)), 1 << 20) as incoming:
        fill(small_disk)
        incoming.write(noise(1 << 20))  # it was promised
        incoming.finish()


def test_the_journal_lives_through_a_full_disk(small_disk: Path) -> None:
    ballast = space.Ballast(small_disk / "ballast")
    assert ballast.take()
    with Journal(small_disk / "j", make_room=ballast.drop) as journal:
        fill(small_disk)
        for number in range(100):
            journal.set_note(str(number), "x" * 1000)
        assert not ballast.there
        assert not ballast.take()  # there is no room for it yet
        (small_disk / "filler").unlink()
        assert ballast.take()
    with Journal(small_disk / "j") as journal:
        assert len(journal.notes("")) == 100


def test_a_journal_opens_on_a_full_disk(small_disk: Path) -> None:
    ballast = space.Ballast(small_disk / "ballast")
    ballast.take()
    with Journal(small_disk / "j") as journal:
        journal.set_note("a", "b")
    fill(small_disk)
    with Journal(small_disk / "j", make_room=ballast.drop) as journal:
        assert journal.note("a") == "b"
        assert journal.boot == 2


def test_dropping_what_is_not_there(tmp_path: Path) -> None:
    assert not space.Ballast(tmp_path / "none").drop()
    assert not space.Ballast(tmp_path / "none" / "deep").take()
