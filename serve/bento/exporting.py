"""Packages as Bentos: BentoML's own builder makes them, and `bentoml serve` runs them unmodified.

    src/service.py      serve/bento/service_file.py
    src/fieldpost.json  the name of the service, the package's digest
    src/package/...     the package's layers, as every target unpacks them, its environment included

The package brings its own environment, so that its answers are the same ones there. The Python that
runs the Bento has to be the version that the package was built for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import AlreadyExistsError, PackagingError, UsageError
from scoring.packages.documents import PREFIX
from scoring.packages.platformindex import resolve, this_platform
from scoring.packages.reading import read_package
from scoring.packages.unpack import unpack_package
from serve.bento.building import Built, Job
from serve.bento.library import require

if TYPE_CHECKING:
    from serve.registry import Registry

_SERVICE = Path(__file__).with_name("service_file.py")
_LAYERS = ("env", "runtime", "code", "model")
_SUFFIXES = {
    ".bento": "bento",
    ".tar": "tar",
    ".gz": "gz",
    ".tgz": "gz",
    ".zip": "zip",
}
_TAIL = 2000


class ExportedBento(msgspec.Struct, frozen=True):
    """A Bento that was made of a package.

    Attributes:
        tag: What BentoML calls it.
        package: The package's digest.
        destination: The file or folder, or its place in BentoML's store.
        stored: Whether it is in BentoML's store.
    """

    tag: str
    package: str
    destination: str
    stored: bool


def export_bento(
    registry: Registry, digest: str, to: str, *, kind: str | None = None
) -> ExportedBento:
    """Writes the Bento of a package.

    Args:
        registry: Has the package.
        digest: The package's.
        to: `bento:DIR`, `bento:FILE` with `.bento`, `.tar`, `.tar.gz` or `.zip`; or `bentoml:` or
            `bentoml:NAME`, for BentoML's store.
        kind: `bento` or `bentoml`, where `to` does not begin with it.

    Raises:
        AlreadyExistsError: The place is taken.
        MissingDependencyError: BentoML is not installed.
        PackagingError: BentoML refuses it, or this is another version of Python.
        UsageError: The destination has not its form.
    """
    require()
    known = read_package(resolve(digest, registry.blobs, this_platform()), registry.blobs)
    python = known.annotations.get(PREFIX + "python", "")
    name = known.annotations.get(PREFIX + "model.name") or "package"
    _require_python(python)
    place = to.removeprefix(f"{kind}:") if kind else to.partition(":")[2]
    stored = (kind or to.partition(":")[0]) == "bentoml"
    path = None if stored else _free_path(place)
    root = unpack_package(digest, registry.blobs, registry.location.blobs / "cache")
    with tempfile.TemporaryDirectory(prefix="fieldpost-bento-") as scratch:
        context = Path(scratch) / "context"
        service = (place if stored and place else name).lower()
        _write_context(root, context, service, digest)
        job = Job(
            context=str(context),
            name=service,
            version=digest.partition(":")[2][:12],
            python=python,
            labels={"fieldpost.package": digest.replace(":", "-")},
            description=_description(name, digest),
            to="" if path is None else str(Path(scratch) / f"exported{''.join(path.suffixes)}"),
            format="folder" if path is None else _SUFFIXES.get(path.suffix, "folder"),
        )
        home = {} if stored else {"BENTOML_HOME": str(Path(scratch) / "home")}
        built = _build(job, home)
        if path is not None:
            _move(Path(built.path), path)
    return ExportedBento(built.tag, digest, str(path or built.path), stored=stored)


def _require_python(python: str) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != python:
        raise PackagingError(
            f"The package needs Python {python}, and BentoML would build here with {here}.",
            hint=f"Build the package with --python {here}, or export it with Python {python}.",
        )


def _free_path(place: str) -> Path:
    if not place:
        raise UsageError(
            "bento: names no place.", hint="Write bento:FILE.bento, bento:DIR, or bentoml: alone."
        )
    path = Path(place)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise AlreadyExistsError(f"{path} is there already.", hint="Choose another place.")
    return path


def _write_context(root: Path, context: Path, service: str, digest: str) -> None:
    package = context / "package"
    package.mkdir(parents=True)
    for name in _LAYERS:
        if (root / name).exists():
            shutil.copytree(
                (root / name).resolve(), package / name, copy_function=_link_or_copy, symlinks=True
            )
    shutil.copy(_SERVICE, context / "service.py")
    settings = {"service": service, "package": digest}
    (context / "fieldpost.json").write_text(json.dumps(settings) + "\n")


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _description(name: str, digest: str) -> str:
    return (
        f"# {name}\n\nThe Fieldpost package `{digest}`: its answers under `/score`, `/v2` and "
        "`/swagger.json` are those of the same package anywhere else.\n"
    )


def _build(job: Job, environment: dict[str, str]) -> Built:
    done = subprocess.run(
        [sys.executable, "-m", "serve.bento.building"],
        input=msgspec.json.encode(job),
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "1", **environment},
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise PackagingError(
            "BentoML does not build it.",
            hint="What it says follows.",
            detail=done.stderr.decode("utf-8", "replace")[-_TAIL:],
        )
    built = msgspec.json.decode(done.stdout.splitlines()[-1], type=Built)
    if built.missing:
        raise PackagingError(
            f"BentoML leaves {built.missing} of the package out.",
            hint="It takes no folders named venv, .venv, .git or __pycache__: rename that one.",
        )
    return built


def _move(made: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    shutil.move(made, path)
