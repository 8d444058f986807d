"""What a device believes, on its disk: twice, so that a flipped bit loses nothing.

Both files hold the same; each is written whole and synced, the first before the second. What is
read is the newer one whose digest is right.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Final, Protocol

import msgspec

from edge.security.trusted import Documents
from scoring import durable
from scoring.errors import VerificationError

logger = logging.getLogger(__name__)

_NAMES: Final = ("trust-a", "trust-b")
_DIGEST_BYTES: Final = 64
_MOST_BYTES: Final = 16 * 1024 * 1024


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device remembers of whom to believe, and of what it has taken on.

    Attributes:
        site: Of the device.
        device: Its name.
        documents: The signed metadata.
        seen_timestamp: The highest version of timestamp metadata ever seen under its keys.
        floor: The latest moment that anything believed was signed at: no earlier is it now.
        generation: Of the last wish that was taken on.
        accepted: The digest of that wish's bytes.
        directors: Whose wishes the generation counts.
        releases: Name to the highest release that was found good here.
        count: Of writes; the newer of two files has the higher one.
    """

    site: str
    device: str
    documents: Documents
    seen_timestamp: int = 0
    floor: float = 0.0
    generation: int = 0
    accepted: str = ""
    directors: tuple[str, ...] = ()
    releases: dict[str, int] = {}
    count: int = 0


class Keeper(Protocol):
    """Where what a device believes is kept."""

    def read(self) -> State | None:
        """What was written last; raises VerificationError where that is damaged."""
        ...

    def write(self, state: State) -> State:
        """Keeps a state; returns it as it was kept."""
        ...


class MemoryStore:
    """For devices that are simulated: what they believe ends with the process."""

    def __init__(self) -> None:
        self._state: State | None = None

    def read(self) -> State | None:
        """What was written last."""
        return self._state

    def write(self, state: State) -> State:
        """Keeps a state."""
        self._state = msgspec.structs.replace(state, count=state.count + 1)
        return self._state


class TrustStore:
    """The two files.

    Args:
        folder: Where they are; it is there.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = tuple(folder / name for name in _NAMES)

    def exists(self) -> bool:
        """Whether anything was ever written."""
        return any(path.exists() for path in self._paths)

    def read(self) -> State | None:
        """The newest state that is whole; None where there is none.

        Raises:
            VerificationError: There are files, and none of them is whole.
        """
        found = [state for path in self._paths if (state := _read(path)) is not None]
        if not found and self.exists():
            raise VerificationError(
                "Both files of the device's trust are damaged.",
                hint="The device begins again from the root that it was enrolled with.",
                where=str(self._paths[0]),
            )
        return max(found, key=lambda state: state.count, default=None)

    def write(self, state: State) -> State:
        """Writes a state; returns it as it was written.

        Raises:
            StorageFullError: No space is left; what was there is there.
            WorkspaceError: The files cannot be written.
        """
        state = msgspec.structs.replace(state, count=state.count + 1)
        body = msgspec.json.encode(state)
        data = hashlib.sha256(body).hexdigest().encode() + body
        for path in self._paths:
            durable.write_bytes(path, data, mode=0o600, what="the device's trust")
        return state


def _read(path: Path) -> State | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
        return msgspec.json.decode(_checked(data), type=State)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        logger.warning("trust file damaged path=%s reason=%s", path, error)
        return None


def _checked(data: bytes) -> bytes:
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("its digest is another")
    return body
