"""Root filesystem archives: what passes, what is left out, what is refused and how."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from scoring.archive import Limits
from scoring.errors import UnsafeArchiveError
from serve.packaging.images.facts import Facts
from serve.packaging.images.rootfs import RootArchive
from tests.support.smallbases import archive, entry, folder, link, program, system


def passed(data: bytes, limits: Limits | None = None) -> tuple[bytes, Facts]:
    found = RootArchive(io.BufferedReader(io.BytesIO(data)), "base.tar", limits)
    return b"".join(found.pieces()), found.facts


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def test_links_and_special_modes_pass_and_devices_in_dev_are_left_out() -> None:
    layer, facts = passed(archive(system()))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getmember("./usr/bin/su").mode == 0o4755
        assert tar.getmember("./bin").linkname == "usr/bin"
        assert tar.getmember("./etc/localtime").linkname == "/usr/share/zoneinfo/UTC"
        member = tar.extractfile("./usr/bin/python3.11")
        assert member is not None
        assert member.read() == program()
    assert "./dev" in names(layer)
    assert "./dev/null" not in names(layer)
    assert facts == Facts(pythons=("3.11",), musl=False, platform="linux/amd64")


def test_extended_attributes_and_long_names_pass() -> None:
    long = "usr/" + "x" * 150 + "/" + "é" * 60
    named = entry(long, b"content", pax_headers={"SCHILY.xattr.security.capability": "\x01\x02"})
    layer, _ = passed(archive([named]))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        member = tar.getmember(long)
        assert member.pax_headers["SCHILY.xattr.security.capability"] == "\x01\x02"


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, lzma.compress, bz2.compress, zstandard.compress],
    ids=["gz", "xz", "bz2", "zst"],
)
def test_the_layer_is_the_same_whatever_the_archive_is_compressed_with(
    compress: Callable[[bytes], bytes],
) -> None:
    plain = archive(system())
    assert passed(compress(plain)) == passed(plain)


def test_padding_at_the_end_makes_no_difference() -> None:
    plain = archive(system())
    assert passed(plain + bytes(20_480))[0] == passed(plain)[0]


def test_a_file_of_many_pieces_passes_whole() -> None:
    content = bytes(range(256)) * 5000
    layer, _ = passed(archive([entry("large", content)]))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        member = tar.extractfile("large")
        assert member is not None
        assert member.read() == content


BAD = {
    "a name that leads outside": ([entry("../x")], "leads outside"),
    "a name that leads outside in its middle": ([entry("a/../../x")], "leads outside"),
    "an absolute name": ([entry("/etc/passwd")], "is absolute"),
    "a name twice": ([entry("a"), entry("./a")], "twice"),
    "a folder twice": ([folder("a"), folder("a/")], "twice"),
    "a link that leads out": ([folder("a"), link("a/b", "../../etc")], "leads out"),
    "a link that leads out and back": ([link("b", "../b/c")], "leads out"),
    "a hard link to nothing": ([link("a", "b", hard=True)], "no file of it"),
    "a hard link to a later file": ([link("a", "b", hard=True), entry("b")], "no file of it"),
    "a hard link outside": ([link("a", "../b", hard=True)], "leads outside"),
    "an absolute hard link": ([link("a", "/etc/shadow", hard=True)], "is absolute"),
    "a file below a link": ([link("a", "/etc"), entry("a/passwd")], "below 'a'"),
    "a file below a file": ([entry("a"), entry("a/b")], "below 'a'"),
    "a device": ([entry("etc/sda", type=tarfile.BLKTYPE)], "device or pipe outside of dev"),
    "a pipe": ([entry("tmp/p", type=tarfile.FIFOTYPE)], "device or pipe outside of dev"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_base_may_hold_is_refused_with_its_own_message(case: str) -> None:
    entries, message = BAD[case]
    with pytest.raises(UnsafeArchiveError, match=message) as caught:
        passed(archive(entries))
    assert "base.tar" in caught.value.message


@pytest.mark.parametrize("at", [1, 100, 511, 513, 1500, 4000])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "gz"])
def test_an_archive_that_is_cut_off(at: int, compress: Callable[[bytes], bytes]) -> None:
    data = compress(archive(system()))
    cut = data[: min(at, len(data) - 9)]
    with pytest.raises(UnsafeArchiveError, match=r"cut off|damaged"):
        passed(cut)


def test_a_compressed_archive_whose_checksum_is_wrong() -> None:
    data = bytearray(gzip.compress(archive(system())))
    data[-6] ^= 1
    with pytest.raises(UnsafeArchiveError, match="damaged"):
        passed(bytes(data))


def test_no_archive_at_all() -> None:
    with pytest.raises(UnsafeArchiveError, match="damaged"):
        passed(b"hello " * 500)
    with pytest.raises(UnsafeArchiveError, match="cut off"):
        passed(b"")


def test_data_behind_the_end() -> None:
    with pytest.raises(UnsafeArchiveError, match="after its end"):
        passed(archive(system()) + b"more" * 200)


def test_a_bomb() -> None:
    bomb = gzip.compress(archive([entry("zeros", bytes(100 << 20))]), 9)
    with pytest.raises(UnsafeArchiveError, match="200 times its size"):
        passed(bomb)


def test_more_bytes_or_entries_than_allowed() -> None:
    with pytest.raises(UnsafeArchiveError, match="over 1000 bytes"):
        passed(archive(system()), Limits(max_bytes=1000))
    with pytest.raises(UnsafeArchiveError, match="over 3 entries"):
        passed(archive(system()), Limits(max_entries=3))
