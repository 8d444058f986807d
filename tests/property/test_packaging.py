"""Archives and layers: whatever goes in comes out, and nothing that should not."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.archive import name_key, unpack_tar_gz
from scoring.errors import DigestMismatchError, UnsafeArchiveError
from serve.packaging.layers import FAST, gzip_members
from serve.packaging.lock import LockedPackage, format_lock, parse_lock
from serve.packaging.tarball import FileEntry, tar_stream

_PART = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="/\\"),
    min_size=1,
    max_size=60,
).filter(lambda part: part not in {".", ".."} and len(part.encode()) <= 255)
_NAME = st.lists(_PART, min_size=1, max_size=5).map("/".join)


@st.composite
def _trees(draw: st.DrawFn) -> dict[str, bytes]:
    """Files of which none is in the way of another, on any file system."""
    tree: dict[str, bytes] = {}
    taken: dict[str, str] = {}
    for name in draw(st.lists(_NAME, max_size=8)):
        parts = name.split("/")
        prefixes = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        fits = all(taken.get(name_key(prefix), prefix) == prefix for prefix in prefixes)
        if fits and name_key(name) not in taken and not set(prefixes) & tree.keys():
            taken |= {name_key(prefix): prefix for prefix in prefixes}
            tree[name] = draw(st.binary(max_size=1500))
    return tree


def _layer(tree: dict[str, bytes]) -> bytes:
    entries = [FileEntry.from_bytes(name, content) for name, content in tree.items()]
    return b"".join(gzip_members(tar_stream(entries), FAST))


def _unpacked(packed: bytes) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        unpack_tar_gz(io.BytesIO(packed), Path(folder))
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in Path(folder).rglob("*")
            if path.is_file()
        }


@settings(deadline=None, max_examples=50)
@given(_trees())
def test_a_layer_unpacks_to_what_was_packed(tree: dict[str, bytes]) -> None:
    packed = _layer(tree)
    assert _unpacked(packed) == tree
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert {member.name for member in tar if member.isfile()} == tree.keys()


@settings(deadline=None, max_examples=50)
@given(_trees())
def test_a_layer_depends_on_its_files_alone(tree: dict[str, bytes]) -> None:
    assert _layer(tree) == _layer(dict(reversed(tree.items())))


@settings(deadline=None, max_examples=50)
@given(_trees(), st.data())
def test_damage_never_writes_outside(tree: dict[str, bytes], data: st.DataObject) -> None:
    archive = bytearray(gzip.decompress(_layer(tree)))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "a", "target")
        with contextlib.suppress(UnsafeArchiveError, DigestMismatchError):
            unpack_tar_gz(io.BytesIO(gzip.compress(bytes(archive), 1)), target)
        outside = [path for path in Path(folder).rglob("*") if not path.is_relative_to(target)]
        assert outside in ([Path(folder, "a")], [])
        assert not any(path.is_symlink() for path in target.rglob("*"))


_PACKAGES = st.builds(
    LockedPackage,
    name=st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,8}", fullmatch=True),
    version=st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(\+cpu)?", fullmatch=True),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(_PACKAGES, unique_by=lambda package: package.name))
def test_a_lock_reads_back(packages: list[LockedPackage]) -> None:
    text = format_lock(tuple(packages))
    assert parse_lock(text) == tuple(sorted(packages))
    assert format_lock(tuple(reversed(packages))) == text
