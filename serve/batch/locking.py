"""One run at a time for one result, on one machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from scoring import durable
from scoring.batch.results import Result
from scoring.batch.stores import LocalStore
from scoring.errors import InUseError

_NAME = "lock"
_PATIENCE_S = 0.3


@contextlib.contextmanager
def locked(result: Result) -> Iterator[None]:
    """Keeps others from working at the same result; elsewhere than on disks here it does nothing.

    Two at once would do no harm, only the same work: what they write is the same.

    Raises:
        InUseError: Another process is at work.
    """
    if not isinstance(result.store, LocalStore):
        yield
        return
    folder = Path(result.state)
    with durable.storage_errors(result.state):
        durable.make_folder(folder)
        descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            _lock(descriptor)
        except OSError:
            raise InUseError(
                f"Another run is at work on {result.path}.",
                hint="Wait until it has ended, or end it with 'fieldpost batch cancel'.",
                where=result.path,
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


@retry(
    retry=retry_if_exception_type(OSError),
    stop=stop_after_delay(_PATIENCE_S),
    wait=wait_fixed(0.02),
    reraise=True,
)
def _lock(descriptor: int) -> None:
    """Those who only look hold it for a moment."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(result: Result) -> bool:
    """Whether a process of this machine is at work on a result."""
    return holder(result) > 0


def holder(result: Result) -> int:
    """The process of this machine that is at work on a result; 0 for none."""
    path = Path(result.state) / _NAME
    if not isinstance(result.store, LocalStore) or not path.is_file():
        return 0
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return int(file.read() or b"0")
    return 0
