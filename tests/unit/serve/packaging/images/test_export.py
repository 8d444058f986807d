"""Layouts and archives, judged by what others read from them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import AlreadyExistsError, DigestMismatchError, StorageFullError, UsageError
from serve.packaging.images.compose import compose
from serve.packaging.images.dockerarchive import docker_archive
from serve.packaging.images.export import Destination, export, parse_destination
from serve.packaging.images.imageset import ImageSet
from serve.packaging.images.importing import open_layout, take_package
from serve.registry.blobs import BlobStore

if TYPE_CHECKING:
    from serve.packaging.images.bases import Base
    from tests.unit.serve.packaging.conftest import Built


@pytest.fixture
def images(built: Built, base: Base) -> ImageSet:
    image = compose(built.package.digest, base, built.blobs)
    return ImageSet(image.digest, image.manifest, (image,), image.package, built.blobs)


def to(text: str) -> Destination:
    return parse_destination(text)


def inspected(place: str) -> dict[str, Any]:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    done = subprocess.run(["skopeo", "inspect", place], capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize(
    ("text", "kind", "path", "name"),
    [
        ("oci:new", "oci", "new", ""),
        ("oci:new:v1", "oci", "new", "v1"),
        ("oci-archive:a.tar:v1", "oci-archive", "a.tar", "v1"),
        ("docker-archive:a.tar", "docker-archive", "a.tar", ""),
        ("docker-archive:a.tar:team/iris", "docker-archive", "a.tar", "team/iris:latest"),
        ("docker-archive:a.tar:r:5000/i:1", "docker-archive", "a.tar", "r:5000/i:1"),
        ("docker-daemon:iris:3", "docker-daemon", None, "iris:3"),
        ("podman:localhost/iris", "podman", None, "localhost/iris:latest"),
    ],
)
def test_destinations(text: str, kind: str, path: str | None, name: str) -> None:
    found = parse_destination(text)
    assert (found.kind, found.path, found.name) == (kind, Path(path) if path else None, name)
    assert parse_destination(text.partition(":")[2], kind) == found
    assert parse_destination(text, kind) == found


@pytest.mark.parametrize(
    "text", ["", "place", "zip:a.zip", "oci:", "docker-daemon:UPPER", "docker-archive:a:b c"]
)
def test_destinations_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_destination(text)


def test_a_layout(images: ImageSet, tmp_path: Path) -> None:
    written = export(images, to(f"oci:{tmp_path}/deep/er:v1"))
    assert written >= images.size
    assert inspected(f"oci:{tmp_path}/deep/er:v1")["Digest"] == images.digest
    assert export(images, to(f"oci:{tmp_path}/deep/er:v1")) == 0


def test_a_layout_keeps_what_else_is_in_it(images: ImageSet, tmp_path: Path) -> None:
    export(images, to(f"oci:{tmp_path}/lay:v1"))
    export(images, to(f"oci:{tmp_path}/lay:v2"))
    export(images, to(f"oci:{tmp_path}/lay:v2"))
    index = json.loads((tmp_path / "lay" / "index.json").read_bytes())
    names = [
        each["annotations"]["org.opencontainers.image.ref.name"] for each in index["manifests"]
    ]
    assert names == ["v1", "v2"]
    assert inspected(f"oci:{tmp_path}/lay:v1")["Digest"] == images.digest


def test_an_archive_of_a_layout(images: ImageSet, tmp_path: Path) -> None:
    export(images, to(f"oci-archive:{tmp_path}/a.tar"))
    assert inspected(f"oci-archive:{tmp_path}/a.tar")["Digest"] == images.digest
    first = (tmp_path / "a.tar").read_bytes()
    export(images, to(f"oci-archive:{tmp_path}/a.tar"))
    assert (tmp_path / "a.tar").read_bytes() == first


def test_a_docker_archive(images: ImageSet, tmp_path: Path) -> None:
    export(images, to(f"docker-archive:{tmp_path}/d.tar:iris:3"))
    found = inspected(f"docker-archive:{tmp_path}/d.tar")
    assert found["Labels"]["dev.fieldpost.package"] == images.package.digest
    assert found["Layers"] == [
        digest.removeprefix("sha256:") if ":" not in digest else digest
        for digest in images.images[0].diff_ids
    ]
    with tarfile.open(tmp_path / "d.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        assert manifest[0]["RepoTags"] == ["iris:3"]
        config = (tar.extractfile(manifest[0]["Config"]) or io.BytesIO()).read()
    assert f"{hashlib.sha256(config).hexdigest()}.json" == manifest[0]["Config"]


def test_a_docker_archive_leaves_out_what_the_engine_has(images: ImageSet) -> None:
    image = images.images[0]
    whole = b"".join(docker_archive([image], ["a:1"]))
    rest = b"".join(docker_archive([image], ["a:1"], omit=set(image.diff_ids[:-1])))
    names = [
        set(tarfile.open(fileobj=io.BytesIO(data)).getnames())  # noqa: SIM115
        for data in (whole, rest)
    ]
    assert names[1] < names[0]
    assert len(names[0] - names[1]) == len(image.layers) - 1
    with tarfile.open(fileobj=io.BytesIO(rest)) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert len(manifest[0]["Layers"]) == len(image.layers)


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_the_package_comes_back(images: ImageSet, built: Built, tmp_path: Path, kind: str) -> None:
    place = f"{kind}:{tmp_path}/out:v1"
    export(images, to(place))
    store = BlobStore(tmp_path / "other")
    store.create()
    layout, root = open_layout(place)
    assert take_package(layout, root, store, None) == built.package.digest
    base = {layer.digest for layer in images.images[0].base.layers}
    assert not base & set(store.digests())


def test_a_place_that_is_taken(images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AlreadyExistsError, match="no OCI layout"):
        export(images, to(f"oci:{tmp_path}/folder"))
    with pytest.raises(AlreadyExistsError, match="no OCI layout"):
        export(images, to(f"oci:{tmp_path}/file"))
    with pytest.raises(AlreadyExistsError, match="is a folder"):
        export(images, to(f"oci-archive:{tmp_path}/folder"))
    assert [path.name for path in sorted(tmp_path.rglob("*")) if path.name == "mine"] == ["mine"]


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_a_damaged_layer_leaves_nothing(
    images: ImageSet, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images.images[0]
    layer = image.layers[-1].digest
    real = type(image).open

    def damaged(self: Any, descriptor: Any) -> Any:
        if descriptor.digest == layer:
            return io.BytesIO(bytes(descriptor.size))
        return real(self, descriptor)

    monkeypatch.setattr(type(image), "open", damaged)
    place = tmp_path / "out"
    with pytest.raises(DigestMismatchError):
        export(images, to(f"{kind}:{place}"))
    assert not place.exists()
    assert list(tmp_path.glob(".fieldpost*")) == []


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_a_full_disk_leaves_what_was_there(
    images: ImageSet, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    if kind == "oci":
        export(images, to(f"oci:{place}:old"))
        before = (place / "index.json").read_bytes()
    else:
        place.write_bytes(before := b"before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scoring.durable.TemporaryFile.sync", full)
    monkeypatch.setattr("scoring.durable.os.write", full)
    with pytest.raises(StorageFullError):
        export(images, to(f"{kind}:{place}:new" if kind == "oci" else f"{kind}:{place}"))
    monkeypatch.undo()
    assert ((place / "index.json") if kind == "oci" else place).read_bytes() == before
