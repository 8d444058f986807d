"""The archives that must be refused are built here by hand, one by one."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from scoring.archive import Limits, Unpacked, name_key, safe_parts, unpack_tar_gz
from scoring.errors import DigestMismatchError, InvalidNameError, UnsafeArchiveError

if TYPE_CHECKING:
    from pathlib import Path

Fill = Callable[[tarfile.TarFile], None]


def _archive(fill: Fill, kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        fill(tar)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes = b"x", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def _unpack(archive: bytes, target: Path, limits: Limits | None = None) -> Unpacked:
    return unpack_tar_gz(io.BytesIO(gzip.compress(archive, 1)), target, limits=limits)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


LONG = "deep/" * 30 + "name-" * 30 + ".txt"


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_other_tools_write(tmp_path: Path, kind: int) -> None:
    wanted = {"a.txt": b"one", "b/c.bin": bytes(range(256)) * 9, "b/d/empty": b""}
    if kind != tarfile.USTAR_FORMAT:
        wanted |= {LONG: b"long", "na\u00efve/\u6a21\u578b.onnx": b"unicode"}

    def fill(tar: tarfile.TarFile) -> None:
        _add(tar, "b", b"", type=tarfile.DIRTYPE)
        for name, content in wanted.items():
            _add(tar, name, content)

    result = _unpack(_archive(fill, kind), tmp_path / "out")
    assert _files(tmp_path / "out") == wanted
    assert result == Unpacked(files=len(wanted), file_bytes=sum(map(len, wanted.values())))


def test_reads_an_archive_of_the_current_folder(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        _add(tar, "./", b"", type=tarfile.DIRTYPE)
        _add(tar, "./a", b"1")

    _unpack(_archive(fill), tmp_path)
    assert _files(tmp_path) == {"a": b"1"}


def test_keeps_only_the_owners_x_bit(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        _add(tar, "runs", mode=0o4700)
        _add(tar, "reads", mode=0o666)

    _unpack(_archive(fill), tmp_path)
    assert (tmp_path / "runs").stat().st_mode & 0o7777 & ~0o055 == 0o700
    assert not (tmp_path / "reads").stat().st_mode & 0o111


def _two(first: str, second: str) -> Fill:
    def fill(tar: tarfile.TarFile) -> None:
        _add(tar, first)
        _add(tar, second)

    return fill


def _link(kind: bytes, target: str) -> Fill:
    def fill(tar: tarfile.TarFile) -> None:
        _add(tar, "link", b"", type=kind, linkname=target)
        _add(tar, "link/passwd")

    return fill


HOSTILE: dict[str, Fill] = {
    "parent": lambda tar: _add(tar, "../evil"),
    "parent inside": lambda tar: _add(tar, "a/../../evil"),
    "harmless parent": lambda tar: _add(tar, "a/../b"),
    "absolute": lambda tar: _add(tar, "/etc/evil"),
    "empty part": lambda tar: _add(tar, "a//b"),
    "no name": lambda tar: _add(tar, "."),
    "control character": lambda tar: _add(tar, "a\nb"),
    "backslash": lambda tar: _add(tar, "..\\evil"),
    "symlink": _link(tarfile.SYMTYPE, "/etc"),
    "relative symlink": _link(tarfile.SYMTYPE, "."),
    "hard link": _link(tarfile.LNKTYPE, "/etc/passwd"),
    "device": lambda tar: _add(tar, "null", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": lambda tar: _add(tar, "sda", b"", type=tarfile.BLKTYPE),
    "pipe": lambda tar: _add(tar, "pipe", b"", type=tarfile.FIFOTYPE),
    "contiguous": lambda tar: _add(tar, "cont", type=tarfile.CONTTYPE),
    "duplicate": _two("a", "a"),
    "duplicate in a folder": _two("folder/file", "folder/file"),
    "case clash": _two("Model.onnx", "model.ONNX"),
    "case clash of folders": _two("A/x", "a/y"),
    "unicode clash": _two("caf\u00e9", "cafe\u0301"),
    "file and folder": _two("a", "a/b"),
    "folder and file": _two("a/b", "a"),
    "too deep": lambda tar: _add(tar, "a/" * 100 + "b"),
    "too long": lambda tar: _add(tar, "x" * 300),
    "pax parent": lambda tar: _add(tar, "ok", pax_headers={"path": "../evil"}),
    "sparse": lambda tar: _add(tar, "ok", pax_headers={"GNU.sparse.major": "1"}),
    "huge record": lambda tar: _add(tar, "ok", pax_headers={"comment": "x" * 100_000}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refuses_hostile_archives(tmp_path: Path, case: str) -> None:
    inside = tmp_path / "out"
    with pytest.raises(UnsafeArchiveError):
        _unpack(_archive(HOSTILE[case]), inside)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert not any(path.is_symlink() for path in inside.rglob("*"))


def test_refuses_the_same_folder_twice(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        _add(tar, "a", b"", type=tarfile.DIRTYPE)
        _add(tar, "a", b"", type=tarfile.DIRTYPE)

    with pytest.raises(UnsafeArchiveError, match="twice"):
        _unpack(_archive(fill), tmp_path)


def test_refuses_a_global_name(tmp_path: Path) -> None:
    out = io.BytesIO()
    headers = {"path": "everything"}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
        _add(tar, "a")
    with pytest.raises(UnsafeArchiveError, match="at once"):
        _unpack(out.getvalue(), tmp_path)


def test_takes_other_global_records(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers={"comment": "git's commit"}) as tar:
        _add(tar, "a")
    assert _unpack(out.getvalue(), tmp_path).files == 1


@pytest.mark.parametrize("field", [(100, b"9999999\0"), (124, b"-0000000001\0"), (257, b"xxxxx")])
def test_refuses_damaged_headers(tmp_path: Path, field: tuple[int, bytes]) -> None:
    archive = bytearray(_archive(lambda tar: _add(tar, "a")))
    at, value = field
    archive[at : at + len(value)] = value
    blanked = archive[:148] + b" " * 8 + archive[156:512]
    archive[148:156] = b"%06o\0 " % sum(blanked)
    with pytest.raises(UnsafeArchiveError, match="damaged"):
        _unpack(bytes(archive), tmp_path)


def test_refuses_a_wrong_checksum(tmp_path: Path) -> None:
    archive = bytearray(_archive(lambda tar: _add(tar, "a")))
    archive[0] ^= 1
    with pytest.raises(UnsafeArchiveError, match="damaged"):
        _unpack(bytes(archive), tmp_path)


@pytest.mark.parametrize("body", [b"99 path=x\n", b"path=x\n", b"10 pathxxx\n", b"9 path=x", b""])
def test_refuses_damaged_pax_records(tmp_path: Path, body: bytes) -> None:
    plain = _archive(lambda tar: _add(tar, "a"))
    info = tarfile.TarInfo("record")
    info.type, info.size = b"x", len(body)
    archive = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + plain
    if body:
        with pytest.raises(UnsafeArchiveError):
            _unpack(archive, tmp_path)
    else:
        assert _unpack(archive, tmp_path).files == 1


def test_refuses_names_that_are_not_utf8(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.USTAR_FORMAT, encoding="latin-1"
    ) as tar:
        _add(tar, "caf\u00e9")
    with pytest.raises(UnsafeArchiveError, match="UTF-8"):
        _unpack(out.getvalue(), tmp_path)


def test_refuses_more_entries_than_allowed(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for number in range(5):
            _add(tar, f"f{number}")

    archive = _archive(fill)
    assert _unpack(archive, tmp_path / "five", Limits(max_entries=5)).files == 5
    with pytest.raises(UnsafeArchiveError, match="4 files"):
        _unpack(archive, tmp_path / "four", Limits(max_entries=4))


def test_refuses_more_bytes_than_allowed(tmp_path: Path) -> None:
    archive = _archive(lambda tar: _add(tar, "big", bytes(100_000)))
    with pytest.raises(UnsafeArchiveError, match="over 50000 bytes"):
        _unpack(archive, tmp_path, Limits(max_bytes=50_000))


def test_refuses_a_bomb_by_its_ratio(tmp_path: Path) -> None:
    archive = _archive(lambda tar: _add(tar, "zeros", bytes(80 << 20)))
    with pytest.raises(UnsafeArchiveError, match="200 times"):
        _unpack(archive, tmp_path / "bomb")
    assert _unpack(archive, tmp_path / "trusted", Limits(max_ratio=0)).files == 1


@pytest.mark.parametrize("cut", [10, 400, 600, 1100, -1030])
def test_refuses_archives_that_are_cut_off(tmp_path: Path, cut: int) -> None:
    archive = _archive(lambda tar: _add(tar, "a", b"y" * 700))[:-8192]
    with pytest.raises(UnsafeArchiveError):
        _unpack(archive[:cut], tmp_path)


def test_refuses_a_gzip_stream_that_is_cut_off(tmp_path: Path) -> None:
    packed = gzip.compress(_archive(lambda tar: _add(tar, "a", b"y" * 700)))
    for cut in (0, 5, len(packed) // 2, len(packed) - 1):
        with pytest.raises(UnsafeArchiveError):
            unpack_tar_gz(io.BytesIO(packed[:cut]), tmp_path / str(cut))


@pytest.mark.parametrize("junk", [b"junk", b"\x1f\x8bjunk"])
def test_refuses_junk_after_the_last_member(tmp_path: Path, junk: bytes) -> None:
    packed = gzip.compress(_archive(lambda tar: _add(tar, "a"))) + junk
    with pytest.raises(UnsafeArchiveError):
        unpack_tar_gz(io.BytesIO(packed), tmp_path)


def test_refuses_content_after_the_end(tmp_path: Path) -> None:
    archive = _archive(lambda tar: _add(tar, "a"))
    with pytest.raises(UnsafeArchiveError, match="after its end"):
        _unpack(archive + _archive(lambda tar: _add(tar, "b")), tmp_path)


def test_reads_any_number_of_members(tmp_path: Path) -> None:
    archive = _archive(lambda tar: _add(tar, "a", bytes(range(256)) * 40))
    members = [gzip.compress(archive[at : at + 777]) for at in range(0, len(archive), 777)]
    packed = b"".join([gzip.compress(b""), *members, gzip.compress(b"")])
    assert unpack_tar_gz(io.BytesIO(packed), tmp_path).files == 1
    assert _files(tmp_path) == {"a": bytes(range(256)) * 40}


def test_checks_both_digests(tmp_path: Path) -> None:
    archive = _archive(lambda tar: _add(tar, "a"))
    packed = gzip.compress(archive)
    right = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    diff_id = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    wrong = f"sha256:{'0' * 64}"

    def unpack(name: str, **expected: str) -> Unpacked:
        return unpack_tar_gz(io.BytesIO(packed), tmp_path / name, **expected)  # type: ignore[arg-type]

    assert unpack("right", digest=right, diff_id=diff_id).files == 1
    with pytest.raises(DigestMismatchError):
        unpack("digest", digest=wrong)
    with pytest.raises(DigestMismatchError):
        unpack("diff", digest=right, diff_id=wrong)
    with pytest.raises(InvalidNameError):
        unpack("form", digest="sha256:../../etc")


def test_damage_is_told_from_danger(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(_archive(lambda tar: _add(tar, "a"))))
    digest = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(DigestMismatchError):
        unpack_tar_gz(io.BytesIO(bytes(packed)), tmp_path, digest=digest)


def test_names_that_are_one_file_somewhere_have_one_key() -> None:
    assert name_key("Stra\u00dfe") == name_key("STRASSE")
    assert name_key("cafe\u0301") == name_key("CAF\u00c9")
    assert name_key("a") != name_key("b")
    assert safe_parts("./a/./b/") == ["a", "b"]
