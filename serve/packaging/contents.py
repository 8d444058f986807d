"""The files of each layer."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import scoring
from scoring import digest as digests
from scoring.bundle import BUNDLE_FILE, IMAGE_ROOT, encode
from scoring.errors import PackagingError
from serve.packaging.layers import FORMAT_VERSION
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
    found: list[FileEntry] = []
    for source, below in _runtime_sources():
        if source.is_dir():
            found += _tree_entries(source, below, executable=False)
        else:
            name = f"{IMAGE_ROOT}/{below}"
            found.append(FileEntry.from_file(name, source, executable=False))
    return found


def runtime_key() -> str:
    """Names the runtime layer by what changes in its files when one is written, added or removed.

    To look at them takes a hundredth of the time that reading and compressing them does.
    """
    parts = [(below, [*_signs(str(source))]) for source, below in _runtime_sources()]
    return digests.of_bytes(msgspec.json.encode(("runtime", FORMAT_VERSION, parts)))


def _runtime_sources() -> list[tuple[Path, str]]:
    ours = Path(scoring.__file__).parent
    server = Path(__file__).parent.parent
    return [
        (ours, "runtime/scoring"),
        (server / "server", "runtime/serve/server"),
        *((server / name, f"runtime/serve/{name}") for name in ("__init__.py", "py.typed")),
    ]


def _signs(path: str) -> Iterator[tuple[str, int, int, int, int, int]]:
    """Of a file, or of all files of a folder: mode, number, size and both times."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        times = (status.st_mtime_ns, status.st_ctime_ns)
        yield path, status.st_mode, status.st_ino, status.st_size, *times
        return
    for name in sorted(os.listdir(path)):  # noqa: PTH208 - names are enough, and there are many
        if name != "__pycache__" and not name.endswith(tuple(_SKIPPED_SUFFIXES)):
            yield from _signs(f"{path}/{name}")


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
