"""Bases from layouts and archives."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import (
    DigestMismatchError,
    FieldpostError,
    IncompatibleEnvironmentError,
    NotFoundError,
    PackagingError,
    UnsafeArchiveError,
    UsageError,
)
from serve.packaging.images.bases import open_local
from serve.packaging.images.compose import compose
from serve.packaging.images.documents import RunConfig
from serve.packaging.images.facts import Facts
from tests.support.smallbases import archive, entry, link, system, write_layout

if TYPE_CHECKING:
    from pathlib import Path

    from serve.packaging.images.basestore import BaseStore
    from tests.unit.serve.packaging.conftest import Built

AMD64, ARM64 = "linux/amd64", "linux/arm64"


def tarred(folder: Path, path: Path) -> Path:
    subprocess.run(["tar", "-C", folder, "-cf", path, "."], check=True)
    return path


def test_a_layout(tmp_path: Path, store: BaseStore) -> None:
    digests = write_layout(tmp_path / "lay", tag="v1", Env=["A=b"])
    for text in (f"oci:{tmp_path}/lay", f"oci:{tmp_path}/lay:v1"):
        base = open_local(text, AMD64, store)
        assert base.digest == digests[AMD64]
        assert base.facts == Facts(pythons=("3.11",), platform=AMD64)
        assert base.name == ""
        assert base.config.config == RunConfig(env=("A=b",))
        with base.open(base.layers[0]) as layer:
            assert layer.read() == archive(system())


def test_an_index_gives_the_image_of_the_platform(tmp_path: Path, store: BaseStore) -> None:
    digests = write_layout(tmp_path / "lay", platforms=(AMD64, ARM64))
    text = f"oci:{tmp_path}/lay"
    assert open_local(text, AMD64, store).digest == digests[AMD64]
    assert open_local(text, ARM64, store).digest == digests[ARM64]


def test_an_archive_of_a_layout(tmp_path: Path, store: BaseStore) -> None:
    digests = write_layout(tmp_path / "lay", tag="v1")
    path = tarred(tmp_path / "lay", tmp_path / "lay.tar")
    for text in (f"oci-archive:{path}", f"oci-archive:{path}:v1"):
        base = open_local(text, AMD64, store)
        assert base.digest == digests[AMD64]
        with base.open(base.layers[0]) as layer:
            assert layer.read() == archive(system())


def test_a_root_filesystem_is_imported_once(
    tmp_path: Path, store: BaseStore, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_local(f"rootfs:{rootfs}", AMD64, store)
    monkeypatch.setattr("serve.packaging.images.imports.import_rootfs", None)
    assert open_local(f"rootfs:{rootfs}", AMD64, store) == first
    monkeypatch.undo()
    other = tmp_path / "elsewhere.tar.gz"
    other.write_bytes(gzip.compress(rootfs.read_bytes()))
    assert open_local(f"rootfs:{other}", AMD64, store).digest == first.digest


def test_a_root_filesystem_that_is_written_again_is_read_again(
    store: BaseStore, rootfs: Path
) -> None:
    before = open_local(f"rootfs:{rootfs}", AMD64, store)
    rootfs.write_bytes(archive([*system(), entry("./new", b"x")]))
    assert open_local(f"rootfs:{rootfs}", AMD64, store).digest != before.digest


def test_an_import_whose_bytes_are_gone_is_made_again(store: BaseStore, rootfs: Path) -> None:
    base = open_local(f"rootfs:{rootfs}", AMD64, store)
    (store.folder / "blobs" / "sha256" / base.layers[0].digest.partition(":")[2]).unlink()
    again = open_local(f"rootfs:{rootfs}", AMD64, store)
    assert again == base
    with again.open(again.layers[0]) as layer:
        assert layer.read()


def docker_archive(
    path: Path, layers: list[bytes], tags: list[str], *, links: bool = False, **changes: Any
) -> Path:
    """As `docker save` writes it, with a link for a layer that comes twice."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
    } | changes
    files = [entry("config.json", json.dumps(config).encode())]
    for number, layer in enumerate(layers):
        if links and number:
            info, _ = entry(f"{number}/layer.tar", type=tarfile.SYMTYPE, linkname="../0/layer.tar")
            files.append((info, b""))
        else:
            files.append(entry(f"{number}/layer.tar", layer))
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": names}]
    files.append(entry("manifest.json", json.dumps(manifest).encode()))
    path.write_bytes(archive(files))
    return path


def docker_entries(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The documents of an archive, without its layers."""
    with tarfile.open(path) as tar:
        names = ("config.json", "manifest.json")
        files = {name: tar.extractfile(name) for name in names}
        return [entry(name, file.read()) for name, file in files.items() if file is not None]


def test_a_docker_archive(tmp_path: Path, store: BaseStore) -> None:
    layer = archive(system())
    path = docker_archive(tmp_path / "d.tar", [layer, layer], ["py:3"], links=True)
    for text in (f"docker-archive:{path}", f"docker-archive:{path}:py:3"):
        base = open_local(text, AMD64, store)
        assert len(base.layers) == 2
        with base.open(base.layers[1]) as source:
            assert gzip.decompress(source.read()) == layer
    compressed = docker_archive(tmp_path / "e.tar", [layer, layer], ["py:3"])
    assert open_local(f"docker-archive:{compressed}", AMD64, store).digest == base.digest


def test_a_docker_archive_that_is_not_right(tmp_path: Path, store: BaseStore) -> None:
    layer = archive(system())
    path = docker_archive(tmp_path / "d.tar", [layer], ["py:3"])
    with pytest.raises(NotFoundError, match="no images named 'other:1'") as caught:
        open_local(f"docker-archive:{path}:other:1", AMD64, store)
    assert "py:3" in caught.value.hint
    with pytest.raises(PackagingError, match="for linux/amd64, and the package for linux/arm64"):
        open_local(f"docker-archive:{path}", ARM64, store)
    false = {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}
    wrong = docker_archive(tmp_path / "w.tar", [layer], ["py:3"], rootfs=false)
    with pytest.raises(DigestMismatchError, match="the configuration names"):
        open_local(f"docker-archive:{wrong}", AMD64, store)
    bomb = docker_archive(tmp_path / "b.tar", [gzip.compress(bytes(80 << 20), 9)], ["py:3"])
    with pytest.raises(UnsafeArchiveError, match="unpacks to over 200 times its size"):
        open_local(f"docker-archive:{bomb}", AMD64, store)
    out = [link("0/layer.tar", "/etc/passwd"), *docker_entries(path)]
    (tmp_path / "o.tar").write_bytes(archive(out))
    with pytest.raises(PackagingError, match=r"o\.tar has no file '0/layer\.tar'"):
        open_local(f"docker-archive:{tmp_path / 'o.tar'}", AMD64, store)
    none = tmp_path / "n.tar"
    none.write_bytes(layer)
    with pytest.raises(NotFoundError, match=r"no manifest\.json"):
        open_local(f"docker-archive:{none}", AMD64, store)


def test_a_base_for_another_platform(tmp_path: Path, store: BaseStore, rootfs: Path) -> None:
    write_layout(tmp_path / "one", platforms=(ARM64,))
    with pytest.raises(PackagingError, match="is for linux/arm64, and the package for linux/amd64"):
        open_local(f"oci:{tmp_path}/one", AMD64, store)
    write_layout(tmp_path / "two", platforms=(AMD64, ARM64))
    with pytest.raises(PackagingError, match="no image for linux/s390x, only for linux/amd64, li"):
        open_local(f"oci:{tmp_path}/two", "linux/s390x", store)
    with pytest.raises(PackagingError, match="is for linux/amd64, and the package for linux/arm64"):
        open_local(f"rootfs:{rootfs}", ARM64, store)
    assert [
        path for path in store.folder.rglob("*") if path.is_file() and "sha256" in path.parts
    ] == []


def broken(tmp_path: Path, damage: str) -> str:
    """A layout that is not right, and how it is named."""
    root = tmp_path / "lay"
    digests = write_layout(root, tag="v1")
    manifest = root / "blobs" / "sha256" / digests[AMD64].partition(":")[2]
    parts = json.loads(manifest.read_text())
    layer = root / "blobs" / "sha256" / parts["layers"][0]["digest"].partition(":")[2]
    config = root / "blobs" / "sha256" / parts["config"]["digest"].partition(":")[2]
    index = root / "index.json"
    flipped = bytearray(layer.read_bytes())
    flipped[600] ^= 1
    text = index.read_text()
    size = str(json.loads(text)["manifests"][0]["size"])
    changes: dict[str, tuple[Path, str | bytes | None]] = {
        "no index": (index, None),
        "garbage": (index, "<html>"),
        "empty": (index, '{"schemaVersion": 2, "manifests": []}'),
        "manifest": (manifest, manifest.read_text() + " "),
        "shorter manifest": (manifest, manifest.read_text()[:-3]),
        "config": (config, config.read_text().replace("linux", "linus")),
        "layer": (layer, bytes(flipped)),
        "no layer": (layer, None),
        "digest": (index, text.replace("sha256:", "sha256:../../")),
        "large": (index, text.replace(size, str(1 << 40))),
    }
    path, content = changes[damage]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return f"oci:{root}"


DAMAGES: dict[str, tuple[type[FieldpostError], str]] = {
    "no index": (NotFoundError, r"no index\.json"),
    "garbage": (PackagingError, "cannot be read"),
    "empty": (NotFoundError, "is empty"),
    "manifest": (DigestMismatchError, "damaged"),
    "shorter manifest": (DigestMismatchError, "damaged"),
    "config": (DigestMismatchError, "damaged"),
    "layer": (DigestMismatchError, "damaged"),
    "no layer": (NotFoundError, "lacks the blob"),
    "digest": (UsageError, "is not a digest"),
    "large": (PackagingError, "too large"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_layout(tmp_path: Path, store: BaseStore, damage: str) -> None:
    kind, message = DAMAGES[damage]
    with pytest.raises(kind, match=message):
        open_local(broken(tmp_path, damage), AMD64, store)


def test_a_layout_that_lacks_the_tag(tmp_path: Path, store: BaseStore) -> None:
    write_layout(tmp_path / "lay", tag="v1")
    with pytest.raises(NotFoundError, match="no image 'v2'") as caught:
        open_local(f"oci:{tmp_path}/lay:v2", AMD64, store)
    assert "v1" in caught.value.hint


def test_what_is_no_archive(tmp_path: Path, store: BaseStore, rootfs: Path) -> None:
    with pytest.raises(NotFoundError, match="no archive"):
        open_local(f"rootfs:{tmp_path}/nothing.tar", AMD64, store)
    with pytest.raises(NotFoundError, match="cannot be read"):
        open_local(f"rootfs:{tmp_path}", AMD64, store)
    with pytest.raises(NotFoundError, match="no archive"):
        open_local(f"oci-archive:{tmp_path}/nothing.tar", AMD64, store)
    packed = tmp_path / "lay.tar.gz"
    packed.write_bytes(gzip.compress(rootfs.read_bytes()))
    with pytest.raises(UnsafeArchiveError, match="is compressed"):
        open_local(f"oci-archive:{packed}", AMD64, store)
    with pytest.raises(UsageError, match="names no base"):
        open_local("rootfs:", AMD64, store)


def test_a_base_kept_whole_is_found_by_its_digest(tmp_path: Path, store: BaseStore) -> None:
    write_layout(tmp_path / "lay")
    base = open_local(f"oci:{tmp_path}/lay", AMD64, store)
    assert store.find(base.digest, AMD64, "x") is None
    store.adopt(base)
    found = store.find(base.digest, AMD64, "x")
    assert found is not None
    assert found.layers == base.layers


def test_a_killed_import_leaves_no_record(
    store: BaseStore, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serve.packaging.images.imports.write_archive", fail)
    with pytest.raises(KeyboardInterrupt):
        open_local(f"rootfs:{rootfs}", AMD64, store)
    monkeypatch.undo()
    assert open_local(f"rootfs:{rootfs}", AMD64, store).facts is not None


def test_a_base_without_python_is_told_apart(
    tmp_path: Path, store: BaseStore, built: Built
) -> None:
    path = tmp_path / "bare.tar"
    path.write_bytes(archive(system(python="3.9")))
    with pytest.raises(IncompatibleEnvironmentError, match=r"no Python 3\.11.*only 3\.9"):
        compose(built.package.digest, open_local(f"rootfs:{path}", AMD64, store), built.blobs)
