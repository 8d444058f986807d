"""The deadlines of the state machine. They are not in the journal: a restart begins them anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge.agent.steps import Moment
from edge.protocol.messages import Soak

FIRST_RETRY_S: Final = 5.0
LAST_RETRY_S: Final = 3600.0
_LONGEST_BETWEEN_MEASURES_S: Final = 30.0
_SHORTEST_BETWEEN_MEASURES_S: Final = 1.0
_MEASURES: Final = 5
_ANSWER_S: Final = 60.0


class Timers:
    """For each module: when its phase has to be over, or what is to happen when.

    Args:
        spread: Gives numbers from 0 to 1.
    """

    def __init__(self, spread: Callable[[], float]) -> None:
        self._spread = spread
        self._deadlines: dict[str, float] = {}
        self._retries: dict[str, float] = {}
        self._soaks: dict[str, tuple[float, float]] = {}  # its end, and between measures
        self._measures: dict[str, float] = {}

    def clear(self, name: str) -> None:
        """Nothing is to happen to the module by itself."""
        for timers in (self._deadlines, self._retries, self._soaks, self._measures):
            timers.pop(name, None)

    def deadline(self, name: str, seconds: float, now: Moment) -> None:
        """A phase begins."""
        self.clear(name)
        self._deadlines[name] = now.steady + seconds

    def retry(self, name: str, failures: int, now: Moment) -> None:
        """After so many failures in a row it is tried again, the later the more there were."""
        self.clear(name)
        longest = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 20))
        self._retries[name] = now.steady + longest * (0.5 + 0.5 * self._spread())

    def soak(self, name: str, soak: Soak, now: Moment) -> None:
        """A version begins to soak."""
        self.clear(name)
        between = min(_LONGEST_BETWEEN_MEASURES_S, soak.seconds / _MEASURES)
        between = max(_SHORTEST_BETWEEN_MEASURES_S, between)
        self._soaks[name] = (now.steady + soak.seconds, between)
        self._measures[name] = min(now.steady + between, now.steady + soak.seconds)

    def measure_due(self, name: str, now: Moment) -> bool:
        """Whether a measure is to be asked for; then its answer has to come in time."""
        if name not in self._measures or now.steady < self._measures[name]:
            return False
        del self._measures[name]
        self._deadlines[name] = now.steady + _ANSWER_S
        return True

    def soaked(self, name: str, now: Moment) -> bool:
        """A measure has come: whether it was the last; else the next is set."""
        end, between = self._soaks.get(name, (now.steady, 0.0))
        self._deadlines.pop(name, None)
        self._measures[name] = min(now.steady + between, max(end, now.steady))
        return now.steady >= end

    def retry_due(self, name: str, now: Moment) -> bool:
        """Whether it is time to try again."""
        due = name in self._retries and now.steady >= self._retries[name]
        if due:
            del self._retries[name]
        return due

    def overdue(self, name: str, now: Moment) -> bool:
        """Whether the phase takes longer than it may."""
        return name in self._deadlines and now.steady >= self._deadlines[name]
