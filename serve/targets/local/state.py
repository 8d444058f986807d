"""What a supervisor leaves on disk for those who come after it: never the truth by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from serve.targets.local.processes import ProcessId

if TYPE_CHECKING:
    from pathlib import Path

STATE_FILE = "state.json"


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor and its workers as they last were.

    Attributes:
        boot: What `processes.boot_id` said.
        supervisor: Its process.
        workers: Their processes.
        revision: The one that answered; None before the first.
        url: Where it answered.
        ended: How the supervisor ended, where it did so by itself; empty while it runs.
    """

    boot: str
    supervisor: ProcessId
    workers: tuple[ProcessId, ...] = ()
    revision: int | None = None
    url: str = ""
    ended: str = ""


def read_state(folder: Path) -> SavedState | None:
    """The saved state; None where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / STATE_FILE).read_bytes(), type=SavedState)
    except (OSError, msgspec.DecodeError):
        return None


def write_state(folder: Path, state: SavedState) -> None:
    """Replaces the saved state at once.

    It is not synced: after a crash of the machine the boot has changed, and an old state says so.

    Raises:
        OSError: It cannot be written; the one before is still there.
    """
    part = folder / f"{STATE_FILE}.part"
    part.write_bytes(msgspec.json.encode(state))
    part.replace(folder / STATE_FILE)
