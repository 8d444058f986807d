from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from scoring.errors import PackagingError
from serve.packaging import tarball
from serve.packaging.tarball import FileEntry, tar_stream

if TYPE_CHECKING:
    from pathlib import Path

LONG = "opt/fieldpost/" + "folder/" * 30 + "x" * 120
SPLIT = "opt/fieldpost/" + "folder/" * 18 + "model.onnx"


def _tar(*entries: FileEntry) -> bytes:
    return b"".join(tar_stream(entries))


def _entry(path: str, content: bytes = b"content") -> FileEntry:
    return FileEntry.from_bytes(path, content)


def test_other_readers_see_the_same_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 5000)
    names = {
        "a.txt": b"one",
        LONG: b"long",
        SPLIT: b"split",
        "mod\u00e8le/\u6a21\u578b": b"\0" * 512,
    }
    archive = _tar(
        *(_entry(name, content) for name, content in names.items()),
        FileEntry.from_file("bin/run", source, executable=True),
    )
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for name, content in names.items():
            file = tar.extractfile(name)
            assert file is not None
            assert file.read() == content
        run = tar.getmember("bin/run")
        assert (run.mode, run.size) == (0o755, source.stat().st_size)
        for member in tar.getmembers():
            assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
            assert (member.uname, member.gname) == ("", "")
    (tmp_path / "archive.tar").write_bytes(archive)
    done = subprocess.run(
        ["tar", "tf", tmp_path / "archive.tar"],
        capture_output=True,
        text=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        check=True,
    )
    assert set(names) <= set(done.stdout.splitlines())
    assert done.stderr == ""


def test_the_order_of_entries_does_not_matter() -> None:
    entries = [_entry(name) for name in ("b/2", "b/1", "a", "B-other", LONG)]
    assert _tar(*entries) == _tar(*reversed(entries))


def test_folders_come_once_before_their_files() -> None:
    with tarfile.open(fileobj=io.BytesIO(_tar(_entry("a/b/1"), _entry("a/b/2")))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["a", "a/b", "a/b/1", "a/b/2"]
    assert [member.mode for member in members] == [0o755, 0o755, 0o644, 0o644]


def test_plain_names_need_no_pax_records() -> None:
    assert b"PaxHeader" not in _tar(_entry("a/b.txt"), _entry(SPLIT))
    assert b"PaxHeader" in _tar(_entry(LONG))


def test_sizes_that_octal_digits_cannot_hold_are_pax_records() -> None:
    header = tarball._header("big", 9 << 30, 0o644, b"0")
    assert b"size=9663676416\n" in header


def test_only_the_owners_x_bit_counts(tmp_path: Path) -> None:
    for mode, runs in ((0o744, True), (0o611, False), (0o600, False), (0o4755, True)):
        file = tmp_path / str(mode)
        file.write_bytes(b"")
        file.chmod(mode)
        assert FileEntry.from_file("x", file).executable is runs


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("A", "a"),
        ("x/A/1", "x/a/2"),
        ("caf\u00e9", "cafe\u0301"),
        ("../a", "b"),
        ("/a", "b"),
        ("a\nb", "b"),
        ("\udcff", "b"),
    ],
)
def test_refuses_names_that_cannot_be_unpacked(names: tuple[str, str]) -> None:
    with pytest.raises(PackagingError):
        _tar(*map(_entry, names))


@pytest.mark.parametrize("change", [b"longer than it was", b""])
def test_refuses_a_file_that_changes_while_it_is_read(tmp_path: Path, change: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    entry = FileEntry.from_file("file", file)
    file.write_bytes(change)
    with pytest.raises(PackagingError, match="changed while"):
        _tar(entry)
