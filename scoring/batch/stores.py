"""Where datasets and results are: this machine's disks, or any file system of fsspec.

A file appears under its name whole or not at all: by a rename here, by one `put` elsewhere.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from scoring import durable
from scoring.errors import MissingDependencyError, NotFoundError, UsageError, WorkspaceError

_GLOB = frozenset("*?[")
_HIDDEN = (".", "_")
_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Entry:
    """A file.

    Attributes:
        path: As the store names it.
        size: In bytes.
        mark: What changes with its content.
    """

    path: str
    size: int
    mark: str


class Store(Protocol):
    """Files by their paths."""

    def find(self, place: str) -> list[Entry]:
        """The files of a file's path, a folder (hidden ones left out) or a glob, by their names."""
        ...

    def entry(self, path: str) -> Entry | None:
        """A file; None where there is none."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names in a folder; none where there is no folder."""
        ...

    def open(self, path: str) -> IO[bytes]:
        """Opens for reading, seekable."""
        ...

    def read(self, path: str) -> bytes | None:
        """The whole of a small file; None where there is none."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Writes a small file, whole or not at all."""
        ...

    def take(self, local: Path, path: str) -> None:
        """Gives a finished local file its place, whole or not at all; it may be gone then."""
        ...

    def scratch(self, folder: str) -> contextlib.AbstractContextManager[Path]:
        """A folder here for files that `take` gets, gone at the end of the block."""
        ...

    def tidy(self, folder: str) -> None:
        """Removes what killed processes have left of `scratch`; for the one that is the last."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file or a folder with all that is in it, if it is there."""
        ...


def is_url(place: str) -> bool:
    """Whether a place is one of fsspec, and no path here."""
    scheme, separator, _ = place.partition("://")
    return bool(separator) and scheme.replace("+", "").isalnum() and scheme != "file"


def store_of(place: str) -> tuple[Store, str]:
    """The store of a place, and the path there.

    Raises:
        UsageError: The URL's file system is not known, or what it needs is not installed.
        MissingDependencyError: fsspec is not installed.
    """
    if not is_url(place):
        return LocalStore(), place.removeprefix("file://")
    try:
        import fsspec  # noqa: PLC0415 - only for URLs
    except ImportError as error:
        raise MissingDependencyError(
            f"{_masked(place)} needs fsspec, which is not installed here.",
            hint="Install it with pip install 'fieldpost[batch]', or add it to the package's "
            "environment where it is read there.",
        ) from error
    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{_masked(place)} cannot be opened: {error}",
            hint="Install the file system's package (s3fs for s3://, gcsfs for gs://, adlfs for "
            "abfs://), or correct the URL.",
        ) from error
    return RemoteStore(system), str(path)


def _masked(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@contextlib.contextmanager
def _readable(path: str, *, quiet: bool = False) -> Iterator[None]:
    """Tells what cannot be read; `quiet`: not of what is not there."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if quiet:
            raise
        raise NotFoundError(f"{path} is not there.", where=path) from error
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be read: {error.strerror}.", where=path) from error


class LocalStore:
    """Files of this machine."""

    def find(self, place: str) -> list[Entry]:
        """See `Store`."""
        path = Path(place)
        if path.is_dir():
            below = (p for p in path.rglob("*") if not is_hidden(p.relative_to(path).parts))
            return [self._entry(p) for p in sorted(below) if p.is_file()]
        if path.exists():
            return [self._entry(path)]
        if not _GLOB & set(place):
            return []
        found = map(Path, sorted(glob.glob(place, recursive=True)))  # noqa: PTH207 - hides dots
        return [self._entry(each) for each in found if each.is_file()]

    def entry(self, path: str) -> Entry | None:
        """See `Store`."""
        return self._entry(Path(path)) if Path(path).is_file() else None

    def names(self, folder: str) -> list[str]:
        """See `Store`."""
        path = Path(folder)
        return sorted(each.name for each in path.iterdir()) if path.is_dir() else []

    def open(self, path: str) -> IO[bytes]:
        """See `Store`."""
        with _readable(path):
            return Path(path).open("rb")

    def read(self, path: str) -> bytes | None:
        """See `Store`."""
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            _readable(path, quiet=True),
        ):
            return Path(path).read_bytes()
        return None

    def write(self, path: str, data: bytes) -> None:
        """See `Store`."""
        with durable.storage_errors(path):
            durable.make_folder(Path(path).parent)
        durable.write_bytes(Path(path), data)

    def take(self, local: Path, path: str) -> None:
        """See `Store`."""
        target = Path(path)
        with durable.storage_errors(path, "What was there is as it was."):
            durable.make_folder(target.parent)
            with local.open("rb+") as file:
                os.fchmod(file.fileno(), _MODE)
                os.fsync(file.fileno())
            local.replace(target)
            durable.sync_folder(target.parent)

    @contextlib.contextmanager
    def scratch(self, folder: str) -> Iterator[Path]:
        """See `Store`: beside the results, so that a rename is enough."""
        with durable.storage_errors(folder):
            durable.make_folder(Path(folder))
            temporary = durable.TemporaryFolder(Path(folder))
        with temporary:
            yield temporary.path

    def tidy(self, folder: str) -> None:
        """See `Store`. Not while others write: not every shared disk knows locks."""
        with durable.storage_errors(folder):
            durable.sweep(Path(folder))

    def remove(self, path: str) -> None:
        """See `Store`."""
        with durable.storage_errors(path):
            if Path(path).is_dir():
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)

    @staticmethod
    def _entry(path: Path) -> Entry:
        status = path.stat()
        return Entry(str(path), status.st_size, f"{status.st_mtime_ns}")


class RemoteStore:
    """Files of a file system of fsspec.

    Args:
        system: The file system.
    """

    def __init__(self, system: Any) -> None:
        self._system = system

    def find(self, place: str) -> list[Entry]:
        """See `Store`."""
        with self._told(place):
            self._system.invalidate_cache()
            if _GLOB & set(place):
                paths = self._system.glob(place)
            elif self._system.isdir(place):
                skip = len(place.rstrip("/").split("/"))
                paths = [
                    path
                    for path in self._system.find(place)
                    if not is_hidden(tuple(str(path).split("/")[skip:]))
                ]
            else:
                paths = [place] if self._system.isfile(place) else []
            found = [self.entry(str(path)) for path in sorted(paths)]
        return [entry for entry in found if entry is not None]

    def entry(self, path: str) -> Entry | None:
        """See `Store`."""
        with self._told(path):
            try:
                info = self._system.info(path)
            except FileNotFoundError:
                return None
        if info.get("type") == "directory":
            return None
        marks = (info.get(key) for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified"))
        mark = next((str(each) for each in marks if each), str(info.get("created", "")))
        return Entry(path, int(info.get("size") or 0), mark)

    def names(self, folder: str) -> list[str]:
        """See `Store`."""
        with self._told(folder):
            self._system.invalidate_cache()
            try:
                paths = self._system.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in paths)

    def open(self, path: str) -> IO[bytes]:
        """See `Store`."""
        with self._told(path):
            opened: IO[bytes] = self._system.open(path, "rb")
            return opened

    def read(self, path: str) -> bytes | None:
        """See `Store`."""
        with self._told(path):
            try:
                return bytes(self._system.cat_file(path))
            except FileNotFoundError:
                return None

    def write(self, path: str, data: bytes) -> None:
        """See `Store`."""
        with self._told(path):
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, data)

    def take(self, local: Path, path: str) -> None:
        """See `Store`."""
        with self._told(path):
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(local), path)

    @contextlib.contextmanager
    def scratch(self, _folder: str) -> Iterator[Path]:
        """See `Store`."""
        with tempfile.TemporaryDirectory(prefix="fieldpost-batch-") as folder:
            yield Path(folder)

    def tidy(self, folder: str) -> None:
        """See `Store`: nothing of it is there."""

    def remove(self, path: str) -> None:
        """See `Store`."""
        with self._told(path), contextlib.suppress(FileNotFoundError):
            self._system.rm(path, recursive=True)

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{path} is not there.", where=path) from error
        except OSError as error:
            raise WorkspaceError(f"{path} cannot be used: {error}.", where=path) from error


def is_hidden(parts: tuple[str, ...]) -> bool:
    """Whether one of the steps of a path is passed over."""
    return any(part.startswith(_HIDDEN) for part in parts)
