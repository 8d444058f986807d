"""Packages onto a device: what is asked for, what is not, and whose bytes are believed."""

from __future__ import annotations

import json
import platform
import struct
from pathlib import Path

import msgspec
import pytest
import zstandard

from edge.agent import delta, fetch
from edge.agent.blobs import DeviceBlobs
from edge.agent.layers import open_raw
from edge.protocol.messages import Source
from scoring.errors import (
    DigestMismatchError,
    NotFoundError,
    PackagingError,
    StorageFullError,
)
from tests.support.blob_source import (
    BlobSource,
    Made,
    cut,
    digest_of,
    make_package,
    new_blobs,
    noise,
    send,
    wishes,
)

MODEL = noise(3_000_000)
TUNED = MODEL[:1_000_000] + b"tuned" + MODEL[1_000_005:2_500_000] + b"x" * 40 + MODEL[2_500_040:]
ONE = make_package(env=b"environment", model=MODEL)
TWO = make_package(env=b"environment", model=TUNED)


@pytest.fixture
def blobs(tmp_path: Path) -> DeviceBlobs:
    return new_blobs(tmp_path)


def require_whole(package: Made, blobs: DeviceBlobs) -> None:
    found = fetch.read(package.digest, blobs)
    assert [layer.name for layer in found.layers] == [layer.name for layer in package.layers]
    for layer, made in zip(found.layers, package.layers, strict=True):
        with open_raw(blobs, layer.blob.digest, layer.diff_id) as stream:
            assert stream.read() == made.raw


def test_a_whole_package(blobs: DeviceBlobs) -> None:
    told: list[int] = []
    with BlobSource(ONE) as source:
        result = fetch.fetch(ONE.digest, blobs, wishes(source, told=told.append))
    require_whole(ONE, blobs)
    assert result.received == sum(map(len, ONE.blobs.values())) == sum(told)
    assert (result.wholes, result.deltas, result.spoiled) == (2, 0, 0)


def test_what_is_there_is_not_asked_for(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE, TWO) as source:
        fetch.fetch(ONE.digest, blobs, wishes(source))
        before = len(source.requests)
        fetch.fetch(ONE.digest, blobs, wishes(source))
        assert len(source.requests) == before
        result = fetch.fetch(TWO.digest, blobs, wishes(source))
        assert not source.asked("GET", TWO.layer("env").digest)[1:]
    assert result.wholes == 1
    # What the specification allows: the compressed model and 20 kB.
    assert result.received < len(TWO.layer("model").packed) + 20_000


def test_what_is_unpacked_is_not_asked_for(blobs: DeviceBlobs) -> None:
    there = ONE.layer("model").diff_id
    with BlobSource(ONE) as source:
        fetch.fetch(ONE.digest, blobs, wishes(source), unpacked=lambda each: each == there)
    assert not blobs.has(ONE.layer("model").digest)
    assert blobs.has(ONE.layer("env").digest)


def test_a_registry_keeps_manifests_elsewhere(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE) as source:
        manifest = source.blobs.pop(ONE.digest)
        source.repositories["team/iris"].remove(ONE.digest)
        source.manifests["team/iris", ONE.digest] = (manifest, "application/json")
        fetch.fetch(ONE.digest, blobs, wishes(source.registry))
        require_whole(ONE, blobs)
        assert not source.asked("HEAD")  # registries have no deltas


def test_this_machines_part_of_an_index(blobs: DeviceBlobs) -> None:
    own = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    other = {"amd64": "arm64", "arm64": "amd64"}[own]

    def entry(package: Made, architecture: str) -> dict[str, object]:
        where = {"os": "linux", "architecture": architecture}
        return {"digest": package.digest, "size": 1, "platform": where}

    both = json.dumps({"manifests": [entry(ONE, other), entry(TWO, own)]}).encode()
    neither = json.dumps({"manifests": [entry(ONE, "s390x")]}).encode()
    index = Made(digest_of(both), {digest_of(both): both}, ())
    with BlobSource(TWO, index) as source:
        source.blobs[digest_of(neither)] = neither
        source.repositories["team/iris"].add(digest_of(neither))
        fetch.fetch(index.digest, blobs, wishes(source))
        require_whole(index._replace(layers=TWO.layers), blobs)
        with pytest.raises(PackagingError, match="nothing for linux"):
            fetch.fetch(digest_of(neither), blobs, wishes(source))
    assert fetch.keepers([index.digest], blobs) >= {index.digest, TWO.digest, *TWO.blobs}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"config": {"digest": "sha256:x", "size": 1}}',
        b'{"config": {"digest": "../../etc", "size": 1}, "layers": []}',
        b'{"layers": [{"digest": "%s", "size": -1}]}' % digest_of(b"").encode(),
        b"[" * 100_000,
    ],
    ids=range(7),
)
def test_what_is_no_package(blobs: DeviceBlobs, document: bytes) -> None:
    with BlobSource() as source:
        source.add(Made("", {digest_of(document): document}, ()))
        with pytest.raises(PackagingError):
            fetch.fetch(digest_of(document), blobs, wishes(source))


def test_a_config_that_does_not_fit_its_layers(blobs: DeviceBlobs) -> None:
    config = b'{"rootfs": {"diff_ids": []}}'
    manifest = json.loads(ONE.blobs[ONE.digest])
    manifest["config"] = {"digest": digest_of(config), "size": len(config)}
    text = json.dumps(manifest).encode()
    with BlobSource(Made("", {digest_of(config): config, digest_of(text): text}, ())) as source:
        how = wishes(source)
        with pytest.raises(PackagingError, match="layers contain"):
            fetch.fetch(digest_of(text), blobs, how)


def test_a_document_that_is_another(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE) as bad, BlobSource(ONE) as good:
        bad.on("GET", "blobs", send(200, ONE.blobs[ONE.digest] + b" "), times=9)
        with pytest.raises(DigestMismatchError, match="something else"):
            fetch.fetch(ONE.digest, blobs, wishes(bad))
        fetch.fetch(ONE.digest, blobs, wishes(bad, good))
    require_whole(ONE, blobs)


def test_a_document_without_end(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE) as source:
        source.on("GET", "blobs", send(200, b" " * (5 << 20)), times=9)
        with pytest.raises(DigestMismatchError):
            fetch.fetch(ONE.digest, blobs, wishes(source))


def test_a_damaged_document_is_fetched_again(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE) as source:
        fetch.fetch(ONE.digest, blobs, wishes(source))
        path = blobs.path(ONE.digest)
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DigestMismatchError):
            fetch.read(ONE.digest, blobs)
        fetch.fetch(ONE.digest, blobs, wishes(source))
    require_whole(ONE, blobs)


def test_nobody_has_it(blobs: DeviceBlobs) -> None:
    with BlobSource() as source, pytest.raises(NotFoundError, match="does not have"):
        fetch.fetch(ONE.digest, blobs, wishes(source))
    with pytest.raises(NotFoundError, match="Nobody was named"):
        fetch.fetch(ONE.digest, blobs, wishes())


def test_room_is_asked_for_first(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE) as source:
        with pytest.raises(StorageFullError, match="are needed"):
            fetch.fetch(ONE.digest, blobs, wishes(source), keep_free=1 << 50)
        assert not source.asked("GET", ONE.layer("model").digest)


# -- deltas


def test_a_delta(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE, TWO) as source:
        patch = source.add_delta(ONE.layer("model"), TWO.layer("model"))
        fetch.fetch(ONE.digest, blobs, wishes(source))
        result = fetch.fetch(TWO.digest, blobs, wishes(source), bases=[ONE.digest])
    require_whole(TWO, blobs)
    assert (result.wholes, result.deltas) == (0, 1)
    assert len(patch) < result.received < len(patch) + 2000
    assert result.received < len(TWO.layer("model").packed) / 100
    assert not blobs.has(digest_of(patch))
    assert blobs.has(TWO.layer("model").diff_id)
    assert TWO.layer("model").diff_id in fetch.keepers([TWO.digest], blobs)


def test_a_delta_against_what_came_as_a_delta(blobs: DeviceBlobs) -> None:
    three = make_package(env=b"environment", model=TUNED[:-3] + b"end")
    with BlobSource(ONE, TWO, three) as source:
        source.add_delta(ONE.layer("model"), TWO.layer("model"))
        source.add_delta(TWO.layer("model"), three.layer("model"))
        fetch.fetch(ONE.digest, blobs, wishes(source))
        fetch.fetch(TWO.digest, blobs, wishes(source), bases=[ONE.digest])
        result = fetch.fetch(three.digest, blobs, wishes(source), bases=[TWO.digest])
    assert result.deltas == 1
    require_whole(three, blobs)


def test_a_delta_goes_on_after_a_break(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE, TWO) as source:
        patch = source.add_delta(ONE.layer("model"), TWO.layer("model"))
        fetch.fetch(ONE.digest, blobs, wishes(source))
        source.on("GET", "deltas", cut(100), times=3)
        result = fetch.fetch(TWO.digest, blobs, wishes(source), bases=[ONE.digest])
        ranges = [headers.get("Range") for _, headers in source.asked("GET", "deltas")]
    assert ranges == [None, "bytes=100-", "bytes=200-", "bytes=300-"]
    assert result.deltas == 1
    assert result.received < len(patch) + 2000
    require_whole(TWO, blobs)


@pytest.mark.parametrize("at", [0, 9, 14, 60, 200, -1])
def test_a_delta_with_a_flipped_bit_falls_back_to_the_whole(blobs: DeviceBlobs, at: int) -> None:
    with BlobSource(ONE, TWO) as source:
        patch = bytearray(source.add_delta(ONE.layer("model"), TWO.layer("model")))
        patch[at] ^= 4
        source.deltas = dict.fromkeys(source.deltas, bytes(patch))
        fetch.fetch(ONE.digest, blobs, wishes(source))
        result = fetch.fetch(TWO.digest, blobs, wishes(source), bases=[ONE.digest])
    # In the head there are bits without a meaning.
    assert (result.wholes, result.deltas) == ((0, 1) if result.deltas and at == 14 else (1, 0))
    assert result.wholes == result.spoiled
    require_whole(TWO, blobs)
    assert not list(blobs.arriving.iterdir())


def test_a_delta_that_would_fill_the_disk_falls_back_to_the_whole(blobs: DeviceBlobs) -> None:
    """A controller that was broken into has no offline key, and says any size it likes."""
    new = TWO.layer("model")
    chunk = delta.CHUNK_BYTES
    zeros = zstandard.ZstdCompressor(level=1).compress(bytes(chunk))
    frame = struct.pack("<QII", 0, 0, len(zeros)) + zeros
    for chunks in (20, 1 << 16):
        head = msgspec.json.encode(delta.Head(new=new.diff_id, size=chunk * chunks, chunk=chunk))
        patch = delta.MAGIC + struct.pack("<I", len(head)) + head + frame * 20
        with BlobSource(ONE, TWO) as source:
            source.deltas[ONE.layer("model").digest, new.digest] = patch
            fetch.fetch(ONE.digest, blobs, wishes(source))
            result = fetch.fetch(TWO.digest, blobs, wishes(source), bases=[ONE.digest])
        assert (result.wholes, result.deltas, result.spoiled) == (1, 0, 1)
        require_whole(TWO, blobs)
        blobs.delete(new.digest)


def test_a_delta_that_is_not_what_it_says(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE, TWO) as source:
        source.add_delta(ONE.layer("model"), TWO.layer("model"))
        fetch.fetch(ONE.digest, blobs, wishes(source))
        tag = {"etag": f'"{digest_of(b"else")}"', "content-length": "4"}
        source.on("HEAD", "deltas", send(200, b"", tag), times=9)
        result = fetch.fetch(TWO.digest, blobs, wishes(source), bases=[ONE.digest])
    assert (result.wholes, result.deltas, result.spoiled) == (1, 0, 1)
    require_whole(TWO, blobs)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"etag": "none", "content-length": "100"},
        {"etag": f'"{digest_of(b"")}"', "content-length": "0"},
        {"etag": f'"{digest_of(b"")}"', "content-length": "99999999"},
        {"etag": f'"{digest_of(b"")}"', "content-length": "-5"},
    ],
)
def test_offers_that_are_none(blobs: DeviceBlobs, headers: dict[str, str]) -> None:
    with BlobSource(ONE, TWO) as source:
        fetch.fetch(ONE.digest, blobs, wishes(source))
        source.on("HEAD", "deltas", send(200, b"", headers), times=9)
        result = fetch.fetch(TWO.digest, blobs, wishes(source), bases=[ONE.digest])
        assert not source.asked("GET", "deltas")
    assert (result.wholes, result.spoiled) == (1, 0)


def test_a_base_that_is_damaged(blobs: DeviceBlobs) -> None:
    with BlobSource(ONE, TWO) as source:
        source.add_delta(ONE.layer("model"), TWO.layer("model"))
        fetch.fetch(ONE.digest, blobs, wishes(source))
        path = blobs.path(ONE.layer("model").digest)
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        result = fetch.fetch(TWO.digest, blobs, wishes(source), bases=[ONE.digest])
    assert (result.wholes, result.spoiled) == (1, 1)
    require_whole(TWO, blobs)


def test_the_smallest_delta_of_several_bases(blobs: DeviceBlobs) -> None:
    far = make_package(env=b"environment", model=noise(3_000_000, seed=9))
    with BlobSource(ONE, TWO, far) as source:
        source.add_delta(far.layer("model"), TWO.layer("model"))
        source.add_delta(ONE.layer("model"), TWO.layer("model"))
        for package in (far, ONE):
            fetch.fetch(package.digest, blobs, wishes(source))
        result = fetch.fetch(TWO.digest, blobs, wishes(source), bases=[far.digest, ONE.digest])
    assert result.received < len(TWO.layer("model").packed) / 100


def test_a_source_without_deltas_beside_one_with(blobs: DeviceBlobs) -> None:
    dead = Source(url="http://127.0.0.1:9/v2/x")
    with BlobSource(ONE, TWO) as plain, BlobSource(ONE, TWO) as rich:
        rich.add_delta(ONE.layer("model"), TWO.layer("model"))
        fetch.fetch(ONE.digest, blobs, wishes(plain))
        result = fetch.fetch(TWO.digest, blobs, wishes(dead, plain, rich), bases=[ONE.digest])
    assert result.deltas == 1
