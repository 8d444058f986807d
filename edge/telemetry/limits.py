"""What a spool may take of a device. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from edge.protocol.topics import CLASSES, Class
from scoring.errors import UsageError

_DAY_S: Final = 86_400.0
_LEAST_BYTES: Final = 1 << 20
LOG_BYTES: Final = 256 << 10
"""Of SQLite's write-ahead log between two checkpoints."""

MOST_RECORD_BYTES: Final = 32 << 10
MOST_KIND: Final = 64
ROW_BYTES: Final = 112
"""What a row takes beside its text: its numbers and its places in two indexes."""

_PAGE: Final = 4096
_SHARED_MEMORY: Final = 32 << 10
_FILLED: Final = 0.8


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Hard caps of a spool.

    Attributes:
        most_bytes: Of all its files together.
        alarm_s: How long an alarm is kept; the time that the device was switched off is not counted
            in this or the next three.
        status_s: How long a status is kept.
        metric_s: How long a metric is kept.
        debug_s: How long debug output is kept.
    """

    most_bytes: int = 32 << 20
    alarm_s: float = 90 * _DAY_S
    status_s: float = 30 * _DAY_S
    metric_s: float = 7 * _DAY_S
    debug_s: float = _DAY_S

    def __post_init__(self) -> None:
        if self.most_bytes < _LEAST_BYTES:
            raise UsageError(
                f"A spool of {self.most_bytes} bytes is too small.",
                hint=f"Give it {_LEAST_BYTES} bytes or more.",
                where="most_bytes",
            )
        for name in CLASSES:
            if not self.age_s(name) > 0:
                raise UsageError(f"The age of {name} is not above 0.", where=f"{name}_s")

    def age_s(self, name: Class) -> float:
        """How long records of a class are kept."""
        ages: dict[Class, float] = {
            "alarm": self.alarm_s,
            "status": self.status_s,
            "metric": self.metric_s,
            "debug": self.debug_s,
        }
        return ages[name]

    @property
    def pages(self) -> int:
        """The most pages of the database: the rest is for the log and the shared memory."""
        # A transaction may outgrow the log's limit, until the checkpoint after it.
        return (self.most_bytes - 2 * LOG_BYTES - _SHARED_MEMORY) // _PAGE

    @property
    def budget(self) -> int:
        """The most bytes of rows, as `cost` counts them: pages are never quite filled."""
        return int(self.pages * _PAGE * _FILLED)


def cost(kind: str, data: bytes) -> int:
    """What a record takes in a spool, nearly."""
    return ROW_BYTES + len(kind) + len(data)
