"""The files of a job: a record, or a line of JSON and a body behind it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from scoring import durable
from scoring.errors import WorkspaceError
from serve.server.asyncjobs.records import Record, Request, Result

if TYPE_CHECKING:
    from pathlib import Path

Head = TypeVar("Head", Request, Result)

_STATE = "state"
_LONGEST_HEAD = 1 << 20


def write_record(folder: Path, record: Record) -> None:
    """Replaces the record of a job, durably."""
    durable.write_bytes(
        folder / _STATE,
        msgspec.json.encode(record),
        mode=0o600,
        what="the state of a job",
        unchanged="It is as it was.",
    )


def read_record(folder: Path) -> Record | None:
    """The record of a job; None where there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return msgspec.json.decode((folder / _STATE).read_bytes(), type=Record)
    return None


def write_pair(path: Path, head: Request | Result, body: bytes | bytearray) -> None:
    """Writes a head and a body as one file, atomically and durably."""
    with Writer(path) as writer:
        writer.begin(head)
        writer.append(body)
        writer.finish()


def read_head(path: Path, kind: type[Head]) -> tuple[Head, int]:
    """The head of a file, and where its body begins.

    Raises:
        FileNotFoundError: There is no such file.
        WorkspaceError: It was not written by us.
    """
    with path.open("rb") as file:
        line = file.readline(_LONGEST_HEAD)
    try:
        return msgspec.json.decode(line, type=kind), len(line)
    except msgspec.DecodeError as error:
        raise WorkspaceError(f"{path.name} of a job cannot be read: {error}.") from error


def read_pair(path: Path, kind: type[Head]) -> tuple[Head, bytes]:
    """The head and the body of a file; raises as `read_head`."""
    head, begin = read_head(path, kind)
    with path.open("rb") as file:
        file.seek(begin)
        return head, file.read()


class Writer:
    """Writes a head and, piece by piece, a body. Every step can be repeated where it failed.

    Args:
        path: The file's name, once it is whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with durable.storage_errors("a job"):
            self._file = durable.TemporaryFile(path.parent)
        self._head = 0
        self._length = 0
        self._named = False

    @property
    def body_bytes(self) -> int:
        """How long the body is by now."""
        return self._length - self._head

    def begin(self, head: Request | Result) -> None:
        """Writes the head."""
        self._length = 0
        self.append(msgspec.json.encode(head) + b"\n")
        self._head = self._length

    def append(self, data: bytes | bytearray) -> None:
        """Writes a piece of the body.

        Raises:
            StorageFullError: No space is left; the file is as it was.
        """
        with durable.storage_errors("a job"):
            done = 0
            view = memoryview(data)
            while done < len(view):
                done += os.pwrite(self._file.fd, view[done:], self._length + done)
        self._length += done

    def finish(self) -> None:
        """Gives the file its name, durably."""
        with durable.storage_errors("a job"):
            if not self._named:
                os.ftruncate(self._file.fd, self._length)
                self._file.sync()
                self._file.move(self._path)
                self._named = True
            durable.sync_folder(self._path.parent)

    def close(self) -> None:
        """Removes the file unless it is finished."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
