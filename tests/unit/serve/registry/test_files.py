from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from scoring.errors import InvalidNameError, ModelFileError, ModelNotFoundError, UsageError
from serve.registry import files


def content(source: Path | files.SourceFile) -> bytes:
    return b"".join(bytes(chunk) for chunk in files.read_chunks(source))


def test_a_file_goes_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "my model.onnx"
    path.write_bytes(b"x")
    found = files.collect(path)
    assert list(found) == ["my model.onnx"]
    assert content(found["my model.onnx"]) == b"x"


def test_a_folder_keeps_its_name_its_odd_names_and_its_empty_folders(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    (folder / "assets" / "deep").mkdir(parents=True)
    for name in ("a b", "ü\n", "variables/x", ".hidden"):
        (folder / name).write_bytes(name.encode())
    found = files.collect(folder)
    assert sorted(found) == sorted(
        ["saved/a b", "saved/ü\n", "saved/variables/x", "saved/.hidden", "saved/assets/deep/"]
    )
    assert content(found["saved/ü\n"]) == "ü\n".encode()
    files.check_paths(found)


def test_the_present_folder_goes_by_its_real_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert list(files.collect(Path())) == [f"{tmp_path.name}/file"]


def test_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "real").write_bytes(b"real")
    (folder / "link").symlink_to("sub/real")
    (folder / "linked").symlink_to(folder / "sub")
    (tmp_path / "outer").symlink_to(folder)
    found = files.collect(tmp_path / "outer")
    assert sorted(found) == ["outer/link", "outer/linked/real", "outer/sub/real"]
    assert content(found["outer/link"]) == b"real"


@pytest.mark.parametrize(
    ("target", "expected", "said"),
    [
        ("../secret", ModelFileError, "outside"),
        ("/etc/passwd", ModelFileError, "outside"),
        ("../mm/file", ModelFileError, "outside"),
        (".", ModelFileError, "circle"),
        ("nothing", ModelNotFoundError, "nothing"),
        ("link", ModelFileError, "circle|nothing"),
    ],
)
def test_links_that_lead_elsewhere_are_refused(
    tmp_path: Path, target: str, expected: type[ModelFileError], said: str
) -> None:
    (tmp_path / "secret").write_bytes(b"")
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm" / "file").write_bytes(b"")
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "link").symlink_to(target)
    with pytest.raises(expected, match=said):
        files.collect(folder)


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelFileError, match="pipe"):
        files.collect(folder)
    with pytest.raises(ModelFileError, match="pipe"):
        files.collect(folder / "pipe")
    with pytest.raises(ModelFileError, match="pipe"):
        content(folder / "pipe")  # and it does not wait for a writer
    (folder / "pipe").unlink()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        with pytest.raises(ModelFileError, match="socket"):
            files.collect(folder)
    with pytest.raises(ModelFileError, match="device"):
        files.collect(Path("/dev/zero"))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "x" / "y"):
        with pytest.raises(ModelNotFoundError, match="cannot be read"):
            files.collect(path)
    with pytest.raises(ModelNotFoundError, match="none"):
        content(tmp_path / "none")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / os.fsdecode(b"bad\xff")).write_bytes(b"")
    with pytest.raises(InvalidNameError) as caught:
        files.collect(folder)
    caught.value.where.encode()
    assert "Rename" in caught.value.hint


@pytest.mark.parametrize("size", [0, 1, files.CHUNK_BYTES - 1, files.CHUNK_BYTES * 2 + 5])
def test_all_bytes_are_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert content(path) == path.read_bytes()


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite", "replace", "touch"])
def test_a_file_that_changed_since_it_was_collected_is_an_error(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    found = files.collect(path)["file"]
    if change == "replace":
        (tmp_path / "new").write_bytes(b"before")
        (tmp_path / "new").rename(path)
    elif change != "touch":
        path.write_bytes({"grow": b"before!", "shrink": b"b", "rewrite": b"after!"}[change])
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelFileError, match="changed while"):
        content(found)


def test_a_file_that_grows_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(files.CHUNK_BYTES * 3))
    chunks = files.read_chunks(path)
    next(chunks)
    with path.open("ab") as more:
        more.write(b"more")
    with pytest.raises(ModelFileError, match="changed while"):
        list(chunks)


@pytest.mark.parametrize(
    "path", ["/abs", "../up", "a/../b", "a//b", "./a", "", "a/./b", "a\0b", "x\udcff", "a" * 5000]
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises((InvalidNameError, UsageError)):
        files.check_paths({path: None, "good": None})


def test_a_version_needs_a_file() -> None:
    for paths in ([], ["empty/"]):
        with pytest.raises(UsageError, match="at least one file"):
            files.check_paths(dict.fromkeys(paths))


def test_a_file_cannot_be_another_ones_folder() -> None:
    with pytest.raises(InvalidNameError, match="file and a folder"):
        files.check_paths({"a": None, "a/b": None})
    files.check_paths({"a/b": None, "a/c": None, "ab": None})
