"""Build contexts on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scoring.errors import (
    AlreadyExistsError,
    DigestMismatchError,
    FieldpostError,
    IncompatibleEnvironmentError,
    NotFoundError,
    PackagingError,
)
from scoring.packages.reading import Package, read_package
from serve.packaging.contexts import Context, render, write_context
from serve.packaging.images.finding import BASE_VARIABLE, BaseFinder
from serve.packaging.tarball import FileEntry, tar_stream

if TYPE_CHECKING:
    from tests.unit.serve.packaging.conftest import Built

NAME = "python:3.11-slim"


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    """The folder of a workspace's blobs, which keeps bases."""
    return tmp_path / "workspace"


@pytest.fixture
def package(built: Built) -> Package:
    return read_package(built.package.digest, built.blobs)


def write(built: Built, bases: Path, folder: Path, base: str = NAME) -> Context:
    return write_context(built.package.digest, built.blobs, BaseFinder(bases, base), folder)


def rootfs(path: Path, *names: str) -> str:
    entries = [FileEntry.from_bytes(name, b"") for name in names]
    path.write_bytes(b"".join(tar_stream(entries)))
    return f"rootfs:{path}"


def test_a_context_holds_the_packages_own_layers(
    built: Built, bases: Path, package: Package, tmp_path: Path
) -> None:
    context = write(built, bases, tmp_path / "context")

    assert context.files == (
        *(".dockerignore", "Dockerfile"),
        *sorted(f"{layer.name}.tar.gz" for layer in package.layers),
    )
    for layer in package.layers:
        content = (tmp_path / "context" / f"{layer.name}.tar.gz").read_bytes()
        assert "sha256:" + hashlib.sha256(content).hexdigest() == layer.digest
    assert context.size == sum(f.stat().st_size for f in (tmp_path / "context").iterdir())


def test_the_copies_are_the_readers_own(built: Built, bases: Path, tmp_path: Path) -> None:
    write(built, bases, tmp_path / "context")

    assert all(f.stat().st_nlink == 1 for f in (tmp_path / "context").iterdir())


def test_writing_again_replaces_what_was_written(built: Built, bases: Path, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    local = rootfs(tmp_path / "base.tar", "usr/bin/python3.11")
    first = write(built, bases, folder, local)
    (folder / "README").write_text("the reader's own")

    second = write(built, bases, folder)

    assert "base.tar.gz" in first.files
    assert {path.name for path in folder.iterdir()} == {*second.files, "README"}
    assert f"ARG BASE={NAME}\n" in (folder / "Dockerfile").read_text()


def test_a_folder_of_something_else_is_left_alone(
    built: Built, bases: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM mine")

    with pytest.raises(AlreadyExistsError):
        write(built, bases, folder)

    assert [path.name for path in folder.iterdir()] == ["Dockerfile"]


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_file_or_link_is_no_folder(
    built: Built, bases: Path, tmp_path: Path, make: object
) -> None:
    assert callable(make)
    make(tmp_path / "context")

    with pytest.raises(AlreadyExistsError):
        write(built, bases, tmp_path / "context")


def test_a_failed_write_leaves_nothing(
    built: Built, bases: Path, package: Package, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    layer = built.blobs.path(package.layers[-1].digest)
    content, mode = layer.read_bytes(), layer.stat().st_mode
    layer.chmod(0o600)
    layer.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(DigestMismatchError):
            write(built, bases, tmp_path / "here" / "context")
    finally:
        layer.write_bytes(content)
        layer.chmod(mode)

    assert list((tmp_path / "here").iterdir()) == []


def test_a_root_filesystem_lies_beside_the_dockerfile(
    built: Built, bases: Path, tmp_path: Path
) -> None:
    local = rootfs(tmp_path / "base.tar", "usr/bin/python3.11")

    write(built, bases, tmp_path / "context", local)

    assert (tmp_path / "context" / "base.tar.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert "FROM scratch\nADD base.tar.gz /\n" in (tmp_path / "context/Dockerfile").read_text()


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (("usr/bin/python3.9",), IncompatibleEnvironmentError),
        (("lib/ld-musl-x86_64.so.1", "usr/bin/python3.11"), IncompatibleEnvironmentError),
    ],
)
def test_a_base_that_cannot_run_it_is_refused(
    built: Built,
    bases: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    error: type[FieldpostError],
) -> None:
    with pytest.raises(error):
        write(built, bases, tmp_path / "context", rootfs(tmp_path / "base.tar", *names))

    assert not (tmp_path / "context").exists()


def test_the_text_alone_writes_nothing(built: Built, bases: Path, tmp_path: Path) -> None:
    text = render(built.package.digest, built.blobs, BaseFinder(bases, NAME))
    write(built, bases, tmp_path / "context")

    assert text == (tmp_path / "context" / "Dockerfile").read_text()


def test_a_package_that_is_not_there(built: Built, bases: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        write_context("sha256:" + "0" * 64, built.blobs, BaseFinder(bases, NAME), tmp_path)


def test_a_base_that_is_no_name(built: Built, bases: Path, tmp_path: Path) -> None:
    with pytest.raises(PackagingError):
        write(built, bases, tmp_path / "context", "python\nRUN x")


def test_which_base_is_taken(package: Package, bases: Path) -> None:
    told, platform = package.annotations, package.platform
    own = {"org.opencontainers.image.base.name": "own", **told}
    pinned = {"org.opencontainers.image.base.digest": "sha256:" + "1" * 64, **own}
    pins = {f"docker.io/library/python:3.11-slim {platform}": "sha256:" + "2" * 64}

    assert BaseFinder(bases, "given", {}).wanted(platform, own) == "given"
    assert BaseFinder(bases, None, {BASE_VARIABLE: "mine:1"}).wanted(platform, own) == "own"
    assert BaseFinder(bases, None, {}).wanted(platform, pinned) == "own@sha256:" + "1" * 64
    assert BaseFinder(bases, None, {BASE_VARIABLE: "mine:1"}).wanted(platform, told) == "mine:1"
    default = "docker.io/library/python:3.11-slim"
    assert BaseFinder(bases, None, {}).wanted(platform, told) == default
    bases.mkdir()
    (bases / "bases.json").write_text(json.dumps(pins))
    assert BaseFinder(bases, None, {}).wanted(platform, told) == f"{default}@sha256:" + "2" * 64
