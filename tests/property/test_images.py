"""Images: root filesystems pass as they are, and nothing but package and base decides a digest."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.errors import UnsafeArchiveError
from serve.packaging.images.compose import _environment
from serve.packaging.images.rootfs import RootArchive
from tests.support.smallbases import archive, entry, folder, link

_PART = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)
_NAME = _PART.filter(lambda part: part not in {".", ".."})
_VALUE = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=10)
_VARIABLES = st.dictionaries(
    st.text(st.sampled_from("ABCPATH"), min_size=1, max_size=4), _VALUE, max_size=6
)


def layer(data: bytes) -> bytes:
    source = io.BufferedReader(io.BytesIO(data))
    return b"".join(RootArchive(source, "base.tar").pieces())


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(_NAME, st.binary(max_size=1500), min_size=1, max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(0, 0o7777),
)
def test_files_pass_byte_for_byte(files: dict[str, bytes], form: int, mode: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, content in [entry(name, data, mode=mode) for name, data in files.items()]:
            tar.addfile(info, io.BytesIO(content))
    passed = layer(gzip.compress(buffer.getvalue()))
    with tarfile.open(fileobj=io.BytesIO(passed)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == list(files)
        for member in members:
            assert (tar.extractfile(member) or io.BytesIO()).read() == files[member.name]
            assert member.mode == mode


@settings(deadline=None, max_examples=60)
@given(_NAME, st.lists(st.sampled_from(["..", "a", ".", "b"]), min_size=1, max_size=6))
def test_links_pass_exactly_where_they_stay_inside(name: str, parts: list[str]) -> None:
    depth, lowest = 1, 1
    for part in parts:
        depth += {"..": -1, ".": 0}.get(part, 1)
        lowest = min(lowest, depth)
    data = archive([folder("top"), link(f"top/{name}", "/".join(parts))])
    if lowest < 0:
        with pytest.raises(UnsafeArchiveError):
            layer(data)
    else:
        layer(data)


@given(_VARIABLES, _VARIABLES)
def test_environments_merge_name_by_name(below: dict[str, str], own: dict[str, str]) -> None:
    merged = dict(
        item.split("=", 1)
        for item in _environment(
            [f"{name}={value}" for name, value in below.items()],
            [f"{name}={value}" for name, value in own.items()],
        )
    )
    wanted = {**below, **own}
    if below.get("PATH"):
        wanted["PATH"] = below["PATH"]
    assert merged == wanted
    assert list(merged) == sorted(merged)
