"""Environment layers that are shared through a registry."""

from __future__ import annotations

import gzip
import json
import logging
from typing import TYPE_CHECKING

import pytest

from scoring import digest as digests
from scoring.errors import InvalidNameError
from serve.packaging.layers import Layer
from serve.packaging.sharedcache import SharedCache, open_cache
from tests.support.oci import make_store
from tests.support.tiny_registry import Handler, TinyRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve.registry.blobs import BlobStore

KEY = digests.of_bytes(b"key")
CONTENT = b"an archive" * 1000


@pytest.fixture
def tiny() -> Iterator[TinyRegistry]:
    with TinyRegistry() as registry:
        yield registry


def put(store: BlobStore, content: bytes = CONTENT) -> Layer:
    stored = store.put_bytes(gzip.compress(content, mtime=0))
    return Layer(stored.digest, stored.size, digests.of_bytes(content), len(content))


def offered(tiny: TinyRegistry, tmp_path: Path) -> Layer:
    store = make_store(tmp_path / "one")
    layer = put(store)
    cache(tiny, store).offer(KEY, layer)
    return layer


def cache(tiny: TinyRegistry, store: BlobStore) -> SharedCache:
    return open_cache(f"{tiny.host}/team/cache", store)


def test_what_one_has_built_another_finds(tiny: TinyRegistry, tmp_path: Path) -> None:
    layer = offered(tiny, tmp_path)
    other = make_store(tmp_path / "other")
    assert cache(tiny, other).find(KEY) == layer
    assert other.verify(layer.digest).size == layer.size
    assert ("team/cache", f"env-{digests.parse(KEY)}") in tiny.manifests


def test_what_was_offered_once_is_not_asked_about_again(tiny: TinyRegistry, tmp_path: Path) -> None:
    layer = offered(tiny, tmp_path)
    before = len(tiny.requests)
    cache(tiny, make_store(tmp_path / "one")).offer(KEY, layer)
    assert len(tiny.requests) == before


def test_another_key_finds_nothing(tiny: TinyRegistry, tmp_path: Path) -> None:
    offered(tiny, tmp_path)
    other = cache(tiny, make_store(tmp_path / "other"))
    assert other.find(digests.of_bytes(b"another")) is None
    assert other.find(KEY) is not None  # nothing has failed


@pytest.mark.parametrize(
    "parts",
    [
        {"config": {"mediaType": "x", "digest": KEY, "size": 3}, "layers": []},
        {"manifests": []},
    ],
    ids=["no layer", "an index"],
)
def test_something_else_under_the_tag_is_not_used(
    tiny: TinyRegistry, tmp_path: Path, parts: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    other = json.dumps({"schemaVersion": 2, **parts}).encode()
    tag = f"env-{digests.parse(KEY)}"
    tiny.manifests["team/cache", tag] = (other, "")
    with caplog.at_level(logging.WARNING):
        assert cache(tiny, make_store(tmp_path / "other")).find(KEY) is None
    assert "is no such layer" in caplog.text


@pytest.mark.parametrize("change", ["key", "diff_id", "unpacked_size"])
def test_an_entry_that_lies_is_not_used(
    tiny: TinyRegistry, tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    layer = offered(tiny, tmp_path)
    entry = {"key": KEY, "diff_id": layer.diff_id, "unpacked_size": layer.unpacked_size}
    entry[change] = 3 if change == "unpacked_size" else digests.of_bytes(b"a lie")
    config = json.dumps(entry).encode()
    data, kind = tiny.manifests["team/cache", f"env-{digests.parse(KEY)}"]
    manifest = json.loads(data)
    manifest["config"] |= {"digest": digests.of_bytes(config), "size": len(config)}
    tiny._keep("team/cache", digests.of_bytes(config), config)
    tiny.manifests["team/cache", f"env-{digests.parse(KEY)}"] = (
        json.dumps(manifest).encode(),
        kind,
    )
    with caplog.at_level(logging.WARNING):
        assert cache(tiny, make_store(tmp_path / "other")).find(KEY) is None
    assert "is not used" in caplog.text


def test_a_registry_that_refuses_is_asked_once(
    tiny: TinyRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(request: Handler) -> bool:
        request.body()
        request.error(403, "DENIED")
        return True

    for method in ("GET", "HEAD"):
        tiny.on(method, "/team/", refuse, times=99)
    store = make_store(tmp_path / "one")
    shared = cache(tiny, store)
    with caplog.at_level(logging.WARNING):
        assert shared.find(KEY) is None
        shared.offer(KEY, put(store))
    assert len(caplog.records) == 1
    assert "refuses" in caplog.text


def test_a_registry_that_is_down_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path / "one")
    with caplog.at_level(logging.WARNING):
        assert open_cache("127.0.0.1:1/cache", store).find(KEY) is None
    assert "nothing listens" in caplog.text


def test_a_name_that_is_none_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError):
        open_cache("127.0.0.1:1/Cache", make_store(tmp_path / "one"))
