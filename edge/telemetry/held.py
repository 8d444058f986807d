"""Records that wait in memory for a disk that cannot be written: few, the important ones."""

from __future__ import annotations

from typing import Final

from edge.protocol.messages import Ack
from edge.telemetry.rows import Row

MOST_HELD: Final = 256
MOST_HELD_BYTES: Final = 256 << 10


class Held:
    """Rows in memory, in the order in which they came.

    Attributes:
        size: What they take, in bytes.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self.size = 0

    def put(self, rows: list[Row]) -> list[int]:
        """Holds rows; returns the lanes of those that there was no room for."""
        self._set(sorted([*self._rows, *rows]))
        lost = []
        while len(self._rows) > MOST_HELD or self.size > MOST_HELD_BYTES:
            worst = max(row.lane for row in self._rows)
            place = next(at for at, row in enumerate(self._rows) if row.lane == worst)
            lost.append(worst)
            self._set(self._rows[:place] + self._rows[place + 1 :])
        return lost

    def take(self) -> list[Row]:
        """All of them, which are held no more."""
        rows = self._rows
        self._set([])
        return rows

    def rows(self, lane: int, first: int, last: int) -> list[Row]:
        """Those of a lane in a range of ids."""
        return [row for row in self._rows if row.lane == lane and first <= row.id <= last]

    def seqs(self, epoch: str) -> list[int]:
        """The numbers of those of an epoch."""
        return [row.seq for row in self._rows if row.epoch == epoch]

    def count(self, lane: int) -> int:
        """How many of a lane there are."""
        return sum(row.lane == lane for row in self._rows)

    def acked(self, ack: Ack) -> int:
        """Lets go of what the controller has; returns how many those were."""
        kept = [row for row in self._rows if not _names(ack, row)]
        gone = len(self._rows) - len(kept)
        self._set(kept)
        return gone

    def _set(self, rows: list[Row]) -> None:
        self._rows = rows
        self.size = sum(row.size for row in rows)


def _names(ack: Ack, row: Row) -> bool:
    return ack.epoch == row.epoch and any(first <= row.seq <= last for first, last in ack.ranges)
