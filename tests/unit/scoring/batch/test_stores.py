"""Stores: disks here and file systems of fsspec hold files whole, or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from scoring.batch.stores import LocalStore, RemoteStore, Store, is_url, store_of
from scoring.errors import NotFoundError, UsageError
from tests.support.batching import Answering, run


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, str]]:
    if request.param == "local":
        yield LocalStore(), str(tmp_path)
        return
    root = f"/{uuid.uuid4().hex}"
    yield RemoteStore(fsspec.filesystem("memory")), root
    fsspec.filesystem("memory").rm(root, recursive=True)


def test_what_is_written_is_found_read_and_removed(
    place: tuple[Store, str], tmp_path: Path
) -> None:
    store, root = place
    assert store.read(f"{root}/a/b.txt") is None
    assert store.entry(f"{root}/a/b.txt") is None
    assert store.names(f"{root}/none") == []
    store.write(f"{root}/a/b.txt", b"one")
    store.write(f"{root}/a/b.txt", b"two")
    assert store.read(f"{root}/a/b.txt") == b"two"
    entry = store.entry(f"{root}/a/b.txt")
    assert entry is not None
    assert entry.size == 3
    assert store.names(f"{root}/a") == ["b.txt"]
    with store.scratch(f"{root}/a") as folder:
        (folder / "part").write_bytes(b"three")
        store.take(folder / "part", f"{root}/a/c.txt")
    with store.open(f"{root}/a/c.txt") as file:
        assert file.read() == b"three"
    assert store.names(f"{root}/a") == ["b.txt", "c.txt"]
    store.remove(f"{root}/a/c.txt")
    store.remove(f"{root}/a/c.txt")
    store.remove(f"{root}/a")
    assert store.entry(f"{root}/a/b.txt") is None


def test_folders_are_read_without_what_is_hidden(place: tuple[Store, str]) -> None:
    store, root = place
    for name in ("b.csv", "a.csv", "deep/c.csv", "_SUCCESS", ".tmp.csv", "_fieldpost/plan.json"):
        store.write(f"{root}/rows/{name}", b"x")
    found = [entry.path.removeprefix(root) for entry in store.find(f"{root}/rows")]
    assert found == ["/rows/a.csv", "/rows/b.csv", "/rows/deep/c.csv"]
    globbed = [entry.path.removeprefix(root) for entry in store.find(f"{root}/rows/[ab]*.csv")]
    assert globbed == ["/rows/a.csv", "/rows/b.csv"]
    assert len(store.find(f"{root}/rows/a.csv")) == 1
    assert store.find(f"{root}/nothing") == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_runs_between_urls(form: str) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    with fsspec.open(f"{root}/rows.csv", "wb") as file:
        file.write(b"left,right\n" + b"2,1\n" * 30)
    for output in (f"{root}/out.{form}", f"{root}/folder"):
        summary = run(Answering(), f"{root}/rows.csv", output, shard_rows=8, output_format=form)
        assert (summary.rows, summary.shards) == (30, 4)
    names = fsspec.filesystem("memory").ls(root.removeprefix("memory:/"), detail=False)
    assert any(name.endswith(f"/out.{form}") for name in names)


@pytest.mark.parametrize(
    ("place", "url"),
    [("s3://a/b", True), ("file:///a", False), ("/a/b", False), ("C:a", False), ("a+b://c", True)],
)
def test_urls_are_told_from_paths(place: str, url: bool) -> None:
    assert is_url(place) is url


def test_unknown_file_systems_are_told_without_passwords() -> None:
    with pytest.raises(UsageError, match="nowhere://host/x cannot be opened") as caught:
        store_of("nowhere://user:secret@host/x")
    assert "secret" not in str(caught.value)


def test_what_is_gone_is_told() -> None:
    store, path = store_of("memory://gone/rows.csv")
    with pytest.raises(NotFoundError):
        store.open(path)
