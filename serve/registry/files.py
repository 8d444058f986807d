"""The files that a user gives: which there are, and their bytes, read once and unchanged.

Symbolic links inside a folder are followed where they stay inside; sockets, devices and pipes are
refused. A file that changes between `collect` and the end of reading is an error.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import InvalidNameError, ModelFileError, ModelNotFoundError, UsageError
from serve.registry import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHUNK_BYTES = 1 << 20
MAX_PATH = 1024


class SourceFile(NamedTuple):
    """A file as it was when it was looked at.

    Attributes:
        path: The real path.
        signature: Device, inode, size and time of change.
    """

    path: Path
    signature: tuple[int, int, int, int]


def collect(path: Path) -> dict[str, SourceFile]:
    """The files of a file or a folder, by path relative to its parent.

    A folder's files so begin with its name: an entry script that was written for Azure ML finds
    the folder that was registered inside `AZUREML_MODEL_DIR`. A path to a folder without files
    ends in `/`.

    Raises:
        ModelNotFoundError: There is no such path, or it cannot be read.
        ModelFileError: A link leads outside or in a circle, or something is no regular file.
        InvalidNameError: A file's name is not Unicode.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        found = real.stat()
        name = _text(path.name if path.name not in ("", "..") else real.name, path)
        if not stat.S_ISDIR(found.st_mode):
            return {name: _source(real, found)}
        return dict(_walk(real, (real,), f"{name}/"))
    except OSError as error:
        raise _unreadable(error, path) from error


def _walk(folder: Path, above: tuple[Path, ...], prefix: str) -> Iterator[tuple[str, SourceFile]]:
    with os.scandir(folder) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    if not children:
        yield prefix, _source_folder(folder)
    for child in children:
        relative = prefix + _text(child.name, folder / child.name)
        real = _real(Path(child.path), above)
        found = real.stat()
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(real, (*above, real), f"{relative}/")
        else:
            yield relative, _source(real, found)


def _real(path: Path, above: tuple[Path, ...]) -> Path:
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(above[0]):
        raise ModelFileError(
            f"The link {path} leads outside of the model's folder, to {real}.",
            hint="Put a copy of what it points at into the folder.",
        )
    if real in above:
        raise ModelFileError(f"The link {path} leads in a circle.", hint="Remove it.")
    if not real.exists():
        raise ModelNotFoundError(f"The link {path} leads to nothing ({real}).", hint="Remove it.")
    return real


def _source(path: Path, found: os.stat_result) -> SourceFile:
    if not stat.S_ISREG(found.st_mode):
        raise ModelFileError(
            f"{path} is no regular file but a {_kind(found.st_mode)}.",
            hint="A model consists of files and folders.",
        )
    return SourceFile(path, _signature(found))


def _source_folder(path: Path) -> SourceFile:
    return SourceFile(path, _signature(path.stat()))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFDIR: "folder"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _signature(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _text(name: str, path: Path) -> str:
    try:
        return names.check_text(name, "The file's name", max_length=MAX_PATH)
    except InvalidNameError as error:
        raise InvalidNameError(error.message, hint="Rename the file.", where=ascii(path)) from error


def _unreadable(error: OSError, path: Path) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{error.filename or path} cannot be read: {error.strerror or error}.",
        hint="Check the path and its permissions.",
    )


def read_chunks(source: Path | SourceFile) -> Iterator[memoryview]:
    """The bytes of a file; a chunk stays valid until the one after the next is asked for.

    Raises:
        ModelNotFoundError: The file cannot be read.
        ModelFileError: It is no regular file, or it changed since `collect` or while it was read.
    """
    path = source.path if isinstance(source, SourceFile) else source
    try:
        # Without O_NONBLOCK a pipe would wait for its writer; on a regular file it says nothing.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(error, path) from error
    try:
        before = _source(path, os.fstat(fd)).signature
        expected = source.signature if isinstance(source, SourceFile) else before
        yield from _read_unchanged(fd, path, expected)
    finally:
        os.close(fd)


def _read_unchanged(
    fd: int, path: Path, expected: tuple[int, int, int, int]
) -> Iterator[memoryview]:
    size = 0
    length = max(1, min(expected[2] + 1, CHUNK_BYTES))
    buffers = [memoryview(bytearray(length)), memoryview(bytearray(length))]
    try:
        while count := os.readv(fd, buffers[:1]):
            size += count
            yield buffers[0][:count]
            buffers.reverse()
        after = os.fstat(fd)
    except OSError as error:
        raise _unreadable(error, path) from error
    if _signature(after) != expected or size != expected[2]:
        raise ModelFileError(
            f"{path} changed while it was read.",
            hint="Wait until whatever writes the file has finished, then run the command again.",
        )


def check_paths(paths: Mapping[str, object]) -> None:
    """Checks the relative paths under which a version's files are to be stored.

    Raises:
        UsageError: There are none.
        InvalidNameError: One is absolute, leads upwards, is not Unicode, or is another's folder.
    """
    if not any(not path.endswith("/") for path in paths):
        raise UsageError("A model needs at least one file.", hint="Give a file or a full folder.")
    for path in paths:
        _check_path(path)
    plain = {path.rstrip("/") for path in paths}
    for path in plain:
        taken = next((str(up) for up in PurePosixPath(path).parents if str(up) in plain), None)
        if taken is not None:
            raise InvalidNameError(f"{taken!r} is to be a file and a folder at once.")


def _check_path(path: str) -> None:
    names.check_text(path, "A file's path", max_length=4 * MAX_PATH)
    parts = path.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidNameError(
            f"{path!r} is not a path inside a model.",
            hint="Give relative paths without '.', '..' and doubled slashes.",
        )
