"""What is going to answer: a package in its own environment, or a model as it is served."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import ModelNotFoundError, NotFoundError, PackagingError, UsageError

if TYPE_CHECKING:
    from serve.registry import Registry
    from serve.registry.records import Package
    from serve.roots import ServeOptions

_BLOCK = 1 << 20
_NAME = "batch-model"


@dataclass(frozen=True, slots=True)
class Thing:
    """A model that can be started.

    Attributes:
        name: For people.
        digest: Of the package, or of all that answers.
        command: Starts `scoring.batch.worker`, but for the number of its threads.
        environment: The whole of the process's.
        folder: Where it starts; empty: here.
    """

    name: str
    digest: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    folder: str = ""


@contextlib.contextmanager
def open_thing(ref: str, registry: Registry, options: ServeOptions) -> Iterator[Thing]:
    """Gets a model ready to be started as often as wanted, for the time of the block.

    Args:
        ref: A package (a digest, or NAME[:VERSION]), a registered model that has none, a file.
        registry: The workspace's.
        options: For files and registered models.

    Raises:
        ModelNotFoundError: It is none of these.
        ModelFileError: The file cannot be served; the message says why.
    """
    package = None if _is_path(ref) else _package(ref, registry)
    if package is not None:
        yield _packaged(package, registry)
        return
    from serve.roots import open_root  # noqa: PLC0415 - frameworks of models

    with open_root(ref, options) as root:
        command = (sys.executable, "-P", "-m", "scoring.batch.worker", str(root), _NAME)
        yield Thing(Path(ref).name, _digest(root), command, dict(os.environ))


def _is_path(ref: str) -> bool:
    return Path(ref).suffix == ".py" or Path(ref).exists()


def _package(ref: str, registry: Registry) -> Package | None:
    try:
        return registry.packages.get(ref)
    except (NotFoundError, UsageError):
        return None


def find_package(ref: str, registry: Registry) -> Package:
    """The package of a reference, where a bare model is not enough.

    Raises:
        ModelNotFoundError: There is none.
    """
    package = _package(ref, registry)
    if package is None:
        raise ModelNotFoundError(
            f"There is no package {ref!r}, which a cluster needs.",
            hint="Build and push it: 'fieldpost package build', 'fieldpost package push'.",
        )
    return package


def _packaged(package: Package, registry: Registry) -> Thing:
    from scoring.packages.unpack import unpack_package  # noqa: PLC0415 - only for packages
    from serve.provenance.policy import admit  # noqa: PLC0415 - likewise
    from serve.targets.local import interpreter  # noqa: PLC0415 - likewise

    admit(registry, package.digest)
    root = unpack_package(package.digest, registry.blobs, registry.location.blobs / "cache")
    boot = root / "runtime" / "scoring" / "boot.py"
    if not (boot.parent / "batch" / "worker.py").is_file():
        raise PackagingError(
            f"The package {package.digest[:19]} was built before there was batch scoring.",
            hint="Build it again with this release: 'fieldpost package build'.",
        )
    python = interpreter.find_interpreter(interpreter.package_python(root))
    command = (python, "-I", "-S", "-X", "utf8", str(boot), str(root), _NAME)
    name = package.model_ref or package.digest[:19]
    return Thing(name, package.digest, command, interpreter.base_environment(), str(root))


def _digest(root: Path) -> str:
    """Names all files of a root by their content."""
    whole = hashlib.sha256()
    for path in sorted(root.glob("model/**/*")) + sorted(root.glob("code/**/*.py")):
        if path.is_file():
            whole.update(f"{path.relative_to(root)}\0".encode())
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    whole.update(block)
    return f"sha256:{whole.hexdigest()}"
