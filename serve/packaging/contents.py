"""The files of each layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import scoring
from scoring.bundle import BUNDLE_FILE, IMAGE_ROOT, encode
from scoring.errors import PackagingError
from serve.packaging.tarball import FileEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scoring.packages.storage import Blobs
    from serve.packaging.lock import Lock
    from serve.packaging.plan import BuildPlan

# Read by `scoring.boot`, which has nothing but the standard library.
ENVIRONMENT_FILE = "env/environment.json"
LOCK_FILE = "env/requirements.lock"
SITE_PACKAGES = "env/site-packages"

_SKIPPED_SUFFIXES = frozenset({".pyc", ".pyo"})


def environment_entries(lock: Lock, site_packages: Path) -> list[FileEntry]:
    """The environment layer: what was installed, and the lock that it was installed from."""
    target = {"python": lock.target.python, "platform": lock.target.platform, "hash": lock.hash}
    document = msgspec.json.format(msgspec.json.encode(target, order="sorted")) + b"\n"
    return [
        _text_entry(ENVIRONMENT_FILE, document),
        _text_entry(LOCK_FILE, lock.text.encode()),
        *_tree_entries(site_packages, SITE_PACKAGES, executable=False),
    ]


def runtime_entries() -> list[FileEntry]:
    """The runtime layer: our own packages as a server needs them.

    They are found where they were imported from, so that an editable install and a wheel give
    the same layer.
    """
    ours = Path(scoring.__file__).parent
    server = Path(__file__).parent.parent
    return [
        *_tree_entries(ours, "runtime/scoring", executable=False),
        *_tree_entries(server / "server", "runtime/serve/server", executable=False),
        *(
            FileEntry.from_file(
                f"{IMAGE_ROOT}/runtime/serve/{name}", server / name, executable=False
            )
            for name in ("__init__.py", "py.typed")
        ),
    ]


def code_entries(plan: BuildPlan) -> list[FileEntry]:
    """The code layer; empty for a model without a script."""
    return [
        FileEntry(
            path=f"{IMAGE_ROOT}/code/{file.path}",
            source=file.source,
            size=file.size,
            executable=file.executable,
        )
        for file in plan.code_files
    ]


def model_entries(plan: BuildPlan, blobs: Blobs) -> list[FileEntry]:
    """The model layer: the package's description and the files that serve."""
    return [
        _text_entry(BUNDLE_FILE, encode(plan.bundle)),
        *(
            FileEntry(
                path=f"{IMAGE_ROOT}/model/{file.path}",
                source=blobs.path(file.digest),
                size=file.size,
                executable=file.executable,
                digest=file.digest,
            )
            for file in plan.model_files
        ),
    ]


def _text_entry(path: str, content: bytes) -> FileEntry:
    return FileEntry.from_bytes(f"{IMAGE_ROOT}/{path}", content)


def _tree_entries(folder: Path, below: str, *, executable: bool | None) -> Iterator[FileEntry]:
    """Every file of a folder; a link in it would be another file on another machine."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise PackagingError(f"{path} is a link, which a layer cannot hold.")
        relative = path.relative_to(folder)
        if path.is_dir() or "__pycache__" in relative.parts or path.suffix in _SKIPPED_SUFFIXES:
            continue
        name = f"{IMAGE_ROOT}/{below}/{relative.as_posix()}"
        yield FileEntry.from_file(name, path, executable=executable)
