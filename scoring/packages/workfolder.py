"""Temporary folders that leave nothing behind, even when their process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX = ".fieldpost-work-"


@contextlib.contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, removed at the end of the block.

    It is locked for as long as its process lives, so that the next caller knows the folders of
    killed processes from those in use, and removes them.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    path, descriptor = _create(parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _create(parent: Path) -> tuple[Path, int]:
    while True:
        path = parent / f"{_PREFIX}{os.urandom(8).hex()}"
        path.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):  # swept before it was locked: once more
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return path, descriptor
            os.close(descriptor)


def sweep(parent: Path) -> None:
    """Removes the work folders below `parent` whose processes are gone."""
    for path in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, or gone meanwhile
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file, made where it is missing; other processes wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
