from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scoring import durable
from scoring.errors import StorageFullError, WorkspaceError
from tests.folders import names_in

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_written_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write_bytes(path, b"one", mode=0o640)
    durable.write_bytes(path, b"two", mode=0o640)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names_in(tmp_path) == ["file"]


def test_content_and_name_are_synced_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_fsync(fd)

    def replace(source: Path, target: Path) -> None:
        steps.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    durable.write_bytes(tmp_path / "file", b"data")
    assert steps == ["file", "replace", "folder"]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EROFS, WorkspaceError),
        (errno.EACCES, WorkspaceError),
        (errno.EIO, WorkspaceError),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    number: int,
    expected: type[WorkspaceError],
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(expected) as caught:
        durable.write_bytes(path, b"new", what="the note", unchanged="The note is as it was.")
    monkeypatch.undo()
    assert type(caught.value) is expected
    assert "the note" in caught.value.message
    if expected is StorageFullError:
        assert "as it was" in caught.value.message
        assert caught.value.retryable
        assert "Free space" in caught.value.hint
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_short_write_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    durable.write_bytes(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    durable.sync_folder(tmp_path)


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    durable.make_folder(tmp_path / "a" / "b")
    durable.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"exists|directory"):
        durable.make_folder(tmp_path / "file" / "below")


def test_a_temporary_folder_is_moved_or_removed(tmp_path: Path) -> None:
    with durable.TemporaryFolder(tmp_path) as folder:
        (folder.path / "file").write_bytes(b"x")
        folder.move(tmp_path / "done")
    with durable.TemporaryFolder(tmp_path) as folder:
        (folder.path / "file").write_bytes(b"x")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "done",
        "done/file",
    ]


def test_sweep_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    leave = (
        "import os, pathlib, sys; from scoring import durable\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "durable.TemporaryFile(folder).write(b'half')\n"
        "(durable.TemporaryFolder(folder).path / 'x').write_bytes(b'half')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", leave, tmp_path], check=True)
    (tmp_path / "mine").write_bytes(b"")
    assert len(names_in(tmp_path)) == 3
    with durable.TemporaryFile(tmp_path) as living, durable.TemporaryFolder(tmp_path) as folder:
        assert durable.sweep(tmp_path) == 2
        assert {living.path.name, folder.path.name, "mine"} == set(names_in(tmp_path))
    assert names_in(tmp_path) == ["mine"]


def test_sweep_takes_a_dangling_link_for_nothing(tmp_path: Path) -> None:
    (tmp_path / f"{durable.TEMPORARY_PREFIX}x").symlink_to(tmp_path / "none")
    assert durable.sweep(tmp_path) == 0


def test_errors_of_other_kinds_pass_through() -> None:
    with pytest.raises(KeyError), durable.storage_errors("the store"):
        raise KeyError


def test_what_can_be_made_again_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache" / "record"  # its folder is made
    monkeypatch.setattr(os, "fsync", None)  # to wait for the disk would fail
    durable.write_cache(path, b"one", mode=0o600)
    durable.write_cache(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names_in(path.parent) == ["record"]


def test_a_full_disk_leaves_a_cached_record_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable.write_cache(tmp_path / "record", b"one")

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFullError):
        durable.write_cache(tmp_path / "record", b"two")
    monkeypatch.undo()
    assert (tmp_path / "record").read_bytes() == b"one"
    assert names_in(tmp_path) == ["record"]


@pytest.mark.parametrize("kind", [durable.TemporaryFile, durable.TemporaryFolder])
def test_what_is_closed_twice_closes_nothing_else(tmp_path: Path, kind: type) -> None:
    """Its descriptor's number belongs to whatever is opened next: a client, for one."""
    temporary = kind(tmp_path)
    temporary.close()
    other = os.open(tmp_path, os.O_RDONLY)
    temporary.close()
    os.close(other)  # raises where it was closed
