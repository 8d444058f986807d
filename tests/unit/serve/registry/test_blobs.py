from __future__ import annotations

import json
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from scoring import digest as digests
from scoring import durable
from scoring.errors import (
    DigestMismatchError,
    InvalidNameError,
    NotFoundError,
    WorkspaceError,
)
from serve.registry.blobs import BlobStore
from serve.registry.incoming import MAX_PENDING
from tests.folders import names_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NONE = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    blobs = BlobStore(tmp_path / "store")
    blobs.create()
    return blobs


def damage(store: BlobStore, digest: str, content: bytes) -> None:
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(content)


def test_the_folder_is_an_oci_layout(store: BlobStore) -> None:
    blob = store.put_bytes(b"hello")
    layout = json.loads((store.root / "oci-layout").read_text())
    assert layout == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store.root / "index.json").read_text())
    assert (index["schemaVersion"], index["manifests"]) == (2, [])
    path = store.root / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")
    assert path.read_bytes() == b"hello"
    store.create()
    assert store.digests() == [blob.digest]


def test_the_same_bytes_are_stored_once_whatever_way_they_come(
    store: BlobStore, tmp_path: Path
) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    pieces = (data[start : start + 700_001] for start in range(0, len(data), 700_001))
    blobs = [store.put_bytes(data), store.put_stream(pieces), store.put_file(tmp_path / "file")]
    assert {(blob.digest, blob.size) for blob in blobs} == {(digests.of_bytes(data), len(data))}
    assert store.digests() == [blobs[0].digest]
    assert stat.S_IMODE(store.path(blobs[0].digest).stat().st_mode) == 0o444
    assert names_in(store.incoming) == []


def test_many_small_chunks_and_none_at_all(store: BlobStore) -> None:
    assert store.read_bytes(store.put_stream([b"a", b"", b"b"] * 1000).digest) == b"ab" * 1000
    assert store.put_stream([]).size == 0


def test_chunks_of_mixed_sizes_are_hashed_in_order(store: BlobStore) -> None:
    chunks = [os.urandom(size) for size in (1, 200_000, 3, 65_536, 65_535, 1_000_000, 0, 7)]
    assert store.put_stream(chunks).digest == digests.of_bytes(b"".join(chunks))


def test_a_batch_stores_more_than_can_wait_at_once(store: BlobStore) -> None:
    with store.batch() as batch:
        blobs = [batch.put_bytes(b"%d" % number) for number in range(MAX_PENDING * 2)]
    assert store.digests() == sorted(blob.digest for blob in blobs)


def test_a_stream_that_fails_leaves_nothing(store: BlobStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(1_000_000)
        raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        store.put_stream(chunks())
    assert store.digests() == []
    assert names_in(store.incoming) == []


def test_reading_checks_the_bytes(store: BlobStore, tmp_path: Path) -> None:
    blob = store.put_bytes(b"hello")
    assert store.verify(blob.digest) == blob
    with store.open(blob.digest) as stream:
        assert stream.read() == b"hello"
    assert store.copy_out(blob.digest, tmp_path / "out") == blob
    damage(store, blob.digest, b"hellO")
    for read in (store.verify, store.read_bytes, lambda d: store.copy_out(d, tmp_path / "bad")):
        with pytest.raises(DigestMismatchError, match="damaged"):
            read(blob.digest)
    assert names_in(tmp_path) == ["out", "store"]


@pytest.mark.parametrize("content", [b"hellO", b"", b"hello world"])
def test_storing_the_same_bytes_repairs_a_damaged_blob(
    store: BlobStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    blob = store.put_bytes(b"hello")
    damage(store, blob.digest, content)
    assert store.put_bytes(b"hello") == blob
    assert store.read_bytes(blob.digest) == b"hello"
    assert "damaged" in caplog.text


@pytest.mark.parametrize("name", ["path", "open", "read_bytes", "verify"])
def test_a_blob_that_is_not_there(store: BlobStore, name: str) -> None:
    assert not store.has(NONE)
    with pytest.raises(NotFoundError):
        getattr(store, name)(NONE)


@pytest.mark.parametrize("name", ["has", "path", "open", "read_bytes", "verify", "delete"])
def test_no_path_is_made_of_what_is_no_digest(store: BlobStore, name: str) -> None:
    with pytest.raises(InvalidNameError):
        getattr(store, name)("sha256:../../../etc/passwd")


def test_the_next_writer_clears_what_a_killed_one_left(store: BlobStore) -> None:
    child = os.fork()
    if child == 0:
        durable.TemporaryFile(store.incoming).write(b"half")
        os._exit(0)
    os.waitpid(child, 0)
    assert len(names_in(store.incoming)) == 1
    store.put_bytes(b"x")
    assert names_in(store.incoming) == []


def test_deleting_says_what_it_freed(store: BlobStore) -> None:
    blob = store.put_bytes(b"hello")
    assert store.delete(blob.digest) == 5
    assert store.delete(blob.digest) is None


def test_writers_at_once_store_the_same_bytes(store: BlobStore) -> None:
    data = os.urandom(200_000)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(store.put_bytes(data).digest))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {digests.of_bytes(data)}
    assert store.verify(found[0]).size == len(data)
    assert names_in(store.incoming) == []


def test_sweeping_waits_for_writers_and_writers_for_it(store: BlobStore) -> None:
    with store.hold(), store.hold(), store.sweeping(patience_s=0.05) as locked:
        assert not locked
    with store.sweeping() as locked:
        assert locked
        entered = threading.Event()

        def write() -> None:
            with store.hold():
                entered.set()

        thread = threading.Thread(target=write)
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(5)
    thread.join()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_store_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WorkspaceError, match="file"):
        BlobStore(tmp_path / place).create()
