"""A package on a base: what comes from which, and that nothing else decides it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from scoring import digest as digests
from scoring.errors import NotFoundError, PackagingError
from scoring.packages.documents import Descriptor
from serve.packaging.images.bases import Base, open_local
from serve.packaging.images.compose import compose
from tests.support.smallbases import write_layout

if TYPE_CHECKING:
    from pathlib import Path

    from serve.packaging.images.basestore import BaseStore
    from tests.unit.serve.packaging.conftest import Built

CONFIG: dict[str, Any] = {
    "Env": ["PATH=/opt/python/bin:/usr/bin", "LANG=de_DE", "PYTHON_VERSION=3.11.9"],
    "Labels": {"maintainer": "someone", "org.opencontainers.image.title": "the base"},
    "Entrypoint": ["/bin/sh"],
    "Cmd": ["-c", "echo"],
    "Healthcheck": {"Test": ["CMD-SHELL", "true"]},
    "User": "root",
    "Volumes": {"/data": {}},
    "OnBuild": ["RUN true"],
}


@pytest.fixture
def rich(tmp_path: Path, store: BaseStore) -> Base:
    write_layout(tmp_path / "rich", **CONFIG)
    return open_local(f"oci:{tmp_path}/rich", "linux/amd64", store)


def config(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(content)
    return found


def test_the_layers_of_the_base_come_first(built: Built, base: Base) -> None:
    image = compose(built.package.digest, base, built.blobs)
    assert image.layers[0].digest == base.layers[0].digest
    own = [layer.digest for layer in built.package.layers.values()]
    assert [layer.digest for layer in image.layers[1:]] == own
    document = config(image.config)
    assert document["rootfs"]["diff_ids"] == list(image.diff_ids)
    assert document["rootfs"]["diff_ids"][0] == base.config.rootfs.diff_ids[0]
    assert len(document["history"]) == len(image.layers)
    assert image.digest == digests.of_bytes(image.manifest)


def test_what_the_container_runs_is_the_package_s(built: Built, rich: Base) -> None:
    run = config(compose(built.package.digest, rich, built.blobs).config)["config"]
    assert run["Entrypoint"][0] == "python3.11"
    assert run["User"] == "65532:65532"
    assert run["StopSignal"] == "SIGTERM"
    assert run["WorkingDir"] == "/opt/fieldpost"
    assert run["ExposedPorts"] == {"5001/tcp": {}}
    assert run["Healthcheck"]["Test"][:2] == ["CMD", "python3.11"]
    assert run.keys().isdisjoint({"Cmd", "Volumes", "OnBuild"})


def test_environment_and_labels_are_merged(built: Built, rich: Base) -> None:
    run = config(compose(built.package.digest, rich, built.blobs).config)["config"]
    environment = dict(item.split("=", 1) for item in run["Env"])
    assert environment["PATH"] == "/opt/python/bin:/usr/bin"
    assert environment["LANG"] == "C.UTF-8"
    assert environment["PYTHON_VERSION"] == "3.11.9"
    assert environment["FIELDPOST_SERVER_HOST"] == "0.0.0.0"
    assert run["Labels"]["maintainer"] == "someone"
    assert run["Labels"]["org.opencontainers.image.title"] == "iris"
    assert run["Labels"]["dev.fieldpost.package"] == built.package.digest


def test_a_base_without_a_path_gets_one(built: Built, base: Base) -> None:
    run = config(compose(built.package.digest, base, built.blobs).config)["config"]
    assert any(item.startswith("PATH=/usr/local/bin:") for item in run["Env"])


def test_annotations_name_the_package_and_the_base(built: Built, rich: Base) -> None:
    image = compose(built.package.digest, rich, built.blobs)
    assert image.annotations["dev.fieldpost.package"] == built.package.digest
    assert image.annotations["org.opencontainers.image.base.digest"] == rich.digest
    assert "org.opencontainers.image.base.name" not in image.annotations
    named = compose(built.package.digest, replace(rich, name="docker.io/x/y:1"), built.blobs)
    assert named.annotations["org.opencontainers.image.base.name"] == "docker.io/x/y:1"


def test_the_same_package_and_base_give_the_same_image(
    tmp_path: Path, built: Built, store: BaseStore
) -> None:
    write_layout(tmp_path / "one", **CONFIG)
    write_layout(tmp_path / "two", **CONFIG)
    images = [
        compose(
            built.package.digest,
            open_local(f"oci:{tmp_path}/{name}", "linux/amd64", store),
            built.blobs,
        )
        for name in ("one", "two")
    ]
    assert images[0].manifest == images[1].manifest
    assert images[0].config == images[1].config


def test_all_that_belongs_to_it_can_be_opened(built: Built, base: Base) -> None:
    image = compose(built.package.digest, base, built.blobs)
    for descriptor in (*image.descriptors(), *image.companions()):
        with image.open(descriptor) as source:
            content = source.read()
        assert digests.of_bytes(content) == descriptor.digest
        assert len(content) == descriptor.size
    with pytest.raises(NotFoundError):
        image.open(Descriptor(media_type="", digest="sha256:" + "0" * 64, size=1))


def test_a_base_of_another_platform_is_refused(built: Built, base: Base) -> None:
    with pytest.raises(PackagingError, match="for linux/arm64, and the package for linux/amd64"):
        compose(built.package.digest, replace(base, platform="linux/arm64"), built.blobs)


def test_history_of_a_base_that_does_not_fit_its_layers_is_left(built: Built, rich: Base) -> None:
    false = msgspec.structs.replace(rich.config, history=({}, {}, {"empty_layer": True}))
    image = compose(built.package.digest, replace(rich, config=false), built.blobs)
    assert len(config(image.config)["history"]) == len(image.layers)
    right = msgspec.structs.replace(rich.config, history=({"created_by": "me"},))
    image = compose(built.package.digest, replace(rich, config=right), built.blobs)
    assert config(image.config)["history"][0] == {"created_by": "me"}
