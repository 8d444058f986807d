"""Writing a version's files into a folder that appears whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring import durable
from scoring.errors import AlreadyExistsError
from serve.registry import files

if TYPE_CHECKING:
    from pathlib import Path

    from serve.registry.blobs import BlobStore
    from serve.registry.records import ModelVersion


def write_folder(blobs: BlobStore, version: ModelVersion, dest: Path, *, replace: bool) -> None:
    """Copies the files out, each checked against its digest; raises like `ModelStore.download`."""
    dest = dest.absolute()
    if _exists(dest) and not replace:
        raise _taken(dest)
    # Paths were checked when they were registered, but the database is not the one to trust here.
    files.check_paths({file.path: None for file in version.files} | dict.fromkeys(version.folders))
    with durable.storage_errors(f"the folder {dest}", f"Nothing was written to {dest}."):
        dest.parent.mkdir(parents=True, exist_ok=True)
        durable.sweep(dest.parent)
        with durable.TemporaryFolder(dest.parent) as folder:
            _fill(blobs, version, folder.path)
            _put_in_place(folder, dest, replace=replace)


def _fill(blobs: BlobStore, version: ModelVersion, folder: Path) -> None:
    for path in version.folders:
        (folder / path).mkdir(parents=True, exist_ok=True)
    for file in version.files:
        place = folder / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        blobs.copy_out(file.digest, place)


def _put_in_place(folder: durable.TemporaryFolder, dest: Path, *, replace: bool) -> None:
    if not _exists(dest):
        folder.move(dest)
    elif not replace:
        raise _taken(dest)
    else:
        with durable.TemporaryFolder(dest.parent) as aside:
            old = aside.path / "replaced"
            dest.rename(old)
            try:
                folder.move(dest)
            except OSError:
                old.rename(dest)
                raise


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _taken(dest: Path) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"{dest} exists already.", hint="Choose another folder, or replace it with --force."
    )
