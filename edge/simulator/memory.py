"""What a simulated device has on its disk: it outlives a power cut, and ends with the process."""

from __future__ import annotations

import msgspec

from edge.agent.states import DeviceState
from edge.security.truststore import MemoryStore


class Disk:
    """The journal of a simulated device, and what it believes.

    Attributes:
        boot: How often it was started.
        trust: Where its trust is kept.
    """

    def __init__(self, boot: int = 0) -> None:
        self.boot = boot
        self.trust = MemoryStore()
        self._state = msgspec.json.encode(DeviceState())
        self._notes: dict[str, str] = {}

    def start(self) -> DeviceState:
        """The device begins: counts that, and says what it was at."""
        self.boot += 1
        return msgspec.json.decode(self._state, type=DeviceState)

    def save(self, state: DeviceState) -> None:
        """Keeps the state, in the form in which a journal would."""
        self._state = msgspec.json.encode(state)

    # -- notes, as the journal has them

    def note(self, key: str) -> str | None:
        """The text kept under a key."""
        return self._notes.get(key)

    def set_note(self, key: str, text: str) -> None:
        """Keeps a text under a key."""
        self._notes[key] = text

    def drop_note(self, key: str) -> None:
        """Forgets it."""
        self._notes.pop(key, None)

    def notes(self, prefix: str) -> dict[str, str]:
        """All with keys that begin so."""
        return {key: text for key, text in self._notes.items() if key.startswith(prefix)}
