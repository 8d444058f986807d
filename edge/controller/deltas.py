"""Deltas between layers, made when they are first asked for and kept in a folder of bounded size.

FOLDER/OLD-NEW (hexadecimal) is a link to FOLDER/content/sha256:HEX: a device asks by the names of
the layers, and checks the bytes by their digest.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import threading
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLateError
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final

from edge.agent import delta
from edge.workspace import Blobs
from scoring import digest as digests
from scoring import durable
from scoring.errors import FieldpostError

logger = logging.getLogger(__name__)

WAIT_S: Final = 20.0
"""A device waits for so long; who asks later gets it at once."""

MOST_BYTES: Final = 4 << 30
MOST_LAYER: Final = 2 << 30
MOST_WAITING: Final = 64
_PIECE: Final = 1 << 20


class DeltaStore:
    """Makes deltas, one at a time.

    Args:
        folder: Where they are kept.
        blobs: The layers.
        most_bytes: The oldest go when there are more.
        wait_s: For how long a first asker waits.
    """

    def __init__(
        self,
        folder: Path,
        blobs: Blobs,
        *,
        most_bytes: int = MOST_BYTES,
        wait_s: float = WAIT_S,
    ) -> None:
        self._folder = folder
        self._blobs = blobs
        self._most_bytes = most_bytes
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._making: dict[str, Future[None]] = {}
        self._useless: set[str] = set()
        self._worker = ThreadPoolExecutor(1, "fleet-deltas")

    def close(self) -> None:
        """Ends the making."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def path(self, old: str, new: str) -> Path | None:
        """The file of a delta, named by its digest; None where it is not made yet, or useless."""
        name = f"{digests.parse(old)}-{digests.parse(new)}"
        link = self._folder / name
        if not link.exists():
            self._make_soon(name, old, new)
        try:
            found = link.resolve(strict=True)
        except OSError:
            return None
        return found if found.is_file() else None

    def _make_soon(self, name: str, old: str, new: str) -> None:
        with self._lock:
            if name in self._useless or old == new:
                return
            job = self._making.get(name)
            if job is None:
                if len(self._making) >= MOST_WAITING:
                    return
                job = self._making[name] = self._worker.submit(self._make, name, old, new)
        try:
            job.result(self._wait_s)
        except TooLateError:
            return  # it is made all the same
        except (FieldpostError, OSError, EOFError, zlib.error) as error:
            logger.warning("no delta old=%s new=%s reason=%s", old, new, error)

    def _make(self, name: str, old: str, new: str) -> None:
        try:
            self._write(name, self._blobs.path(old), self._blobs.path(new))
        finally:
            with self._lock:
                del self._making[name]

    def _write(self, name: str, old: Path, new: Path) -> None:
        content = self._folder / "content"
        what = f"the folder {self._folder}"
        with durable.storage_errors(what):
            durable.make_folder(content, mode=0o700)
        with (
            durable.storage_errors(what),
            _opened(old) as before,
            TemporaryFile(dir=content) as after,
            durable.TemporaryFile(content) as file,
        ):
            with _opened(new) as source:
                _copy(source, after)
            after.seek(0)
            with os.fdopen(os.dup(file.fd), "w+b") as out:
                delta.make(before, after, out)
                out.flush()
                if out.tell() >= new.stat().st_size:
                    self._useless.add(name)
                    return
                out.seek(0)
                digest = digests.of_stream(out)
            file.sync()
            file.move(content / digest)
            self._name(name, digest)
        self._make_room(digest)

    def _name(self, name: str, digest: str) -> None:
        link = self._folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("content") / digest)

    def _make_room(self, kept: str) -> None:
        files = sorted(
            (self._folder / "content").glob("sha256:*"), key=lambda one: one.stat().st_mtime
        )
        size = sum(one.stat().st_size for one in files)
        for one in files:
            if size <= self._most_bytes or one.name == kept:
                break
            size -= one.stat().st_size
            one.unlink(missing_ok=True)


def _opened(path: Path) -> BinaryIO:
    """A layer's archive, whether it is compressed or not."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def _copy(source: BinaryIO, dest: BinaryIO) -> None:
    shutil.copyfileobj(source, dest, _PIECE)
    if dest.tell() > MOST_LAYER:
        raise EOFError("the layer is too large")
