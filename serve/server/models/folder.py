"""The folder of a server of several models, which all its workers share.

    ROOT/models.json             what may be loaded, and how it is prepared (`Manifest`)
    ROOT/state.json              what is loaded, in which versions (`State`)
    ROOT/models/NAME/VERSION/    the root of one version, as a package has it
    ROOT/acks/PID                the generation of the state that a worker has reached
    ROOT/.state-lock             held while the state is changed

Any worker may be asked to load or unload. It writes the new state under the lock; the others see it
at their next tick and follow, and the one that was asked answers when all have. Knows no model.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from scoring import durable
from scoring.errors import CorruptModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

MANIFEST = "models.json"
STATE = "state.json"
_ACKS = "acks"
_LOCK = ".state-lock"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a server may load.

    Attributes:
        default: The name that routes without one answer for; empty for none.
        prepare: The command that prepares the current versions of a model and writes them into the
            state, given the root and the name after it.
        names: Models that are named one by one.
        repository: A folder with one folder for each further model; empty for none.
    """

    prepare: tuple[str, ...]
    default: str = ""
    names: tuple[str, ...] = ()
    repository: str = ""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model.

    Attributes:
        versions: By version, the oldest first, its root, relative to the server's.
        loaded: Whether the workers are to have it loaded.
        reason: Why it could not be prepared; empty if it could.
    """

    versions: dict[str, str] = {}
    loaded: bool = True
    reason: str = ""


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the workers are to have.

    Attributes:
        generation: Counted up with every change.
        models: By name.
    """

    generation: int = 0
    models: dict[str, Entry] = {}


class ModelFolder:
    """The files of one server.

    Args:
        root: Of the server.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._state = root / STATE
        self._acks = root / _ACKS

    @staticmethod
    def is_one(root: Path) -> bool:
        """Whether a root is of several models, not of one package."""
        return (root / MANIFEST).is_file()

    def manifest(self) -> Manifest:
        """What may be loaded.

        Raises:
            CorruptModelError: The file is damaged.
        """
        return _read(self.root / MANIFEST, Manifest)

    def names(self) -> list[str]:
        """Every name that may be loaded now, those in the repository folder included."""
        manifest = self.manifest()
        found = dict.fromkeys(manifest.names)
        if manifest.repository:
            with contextlib.suppress(OSError):
                entries = sorted(Path(manifest.repository).iterdir())
                found |= {e.name: None for e in entries if e.is_dir() and e.name[0] != "."}
        return list(found)

    def state(self) -> State:
        """What is to be loaded.

        Raises:
            CorruptModelError: The file is damaged.
        """
        return _read(self._state, State) if self._state.exists() else State()

    def stamp(self) -> tuple[int, int]:
        """Changes with every change of the state; costs one system call."""
        try:
            found = self._state.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Held while the state is read, changed and written."""
        descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def change(self, name: str, entry: Entry) -> State:
        """Writes one model's entry; call it under the lock.

        Raises:
            StorageFullError: The disk is full; the old state stays.
        """
        before = self.state()
        state = State(before.generation + 1, {**before.models, name: entry})
        durable.write_bytes(self._state, msgspec.json.encode(state))
        return state

    def acknowledge(self, generation: int) -> None:
        """Says that this worker has what a generation of the state asks for."""
        self._acks.mkdir(exist_ok=True)
        path = self._acks / str(os.getpid())
        # The loop and a thread that loads may both come here at once.
        part = path.with_suffix(f".{threading.get_ident()}.part")
        part.write_text(str(generation))
        part.rename(path)

    def lagging(self, generation: int) -> list[int]:
        """The living workers that have not reached a generation."""
        found = []
        for path in self._acks.glob("[0-9]*"):
            if path.suffix:
                continue
            if not Path("/proc", path.name).exists():
                path.unlink(missing_ok=True)
            elif int(path.read_text() or 0) < generation:
                found.append(int(path.name))
        return found


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise CorruptModelError(
            f"{path.name} of the server's folder cannot be read: {error}.",
            hint="Start the server again.",
            where=str(path),
        ) from error
