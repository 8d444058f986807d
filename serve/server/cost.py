"""Whether the event loop itself may run the model: decided by what it has cost (docs/adr/0022)."""

from __future__ import annotations

from math import inf

_WEIGHT = 0.02
_RETURN = 0.5
_MOST = 10


class Cost:
    """A moving mean of the time that an answer takes.

    Single measurements count for at most ten times the limit and weigh little, so that a pause of
    the machine does not look like a slow model.

    Args:
        limit_s: Up to this mean the loop may run the model; 0 for never. Once over the limit, the
            mean has to fall to half of it, so that the choice does not flap.

    Attributes:
        inline: Whether the loop may run it.
    """

    __slots__ = ("_limit_s", "_mean_s", "_most_s", "inline")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._most_s = limit_s * _MOST
        self._mean_s = inf
        self.inline = False

    def note(self, seconds: float) -> None:
        """Takes one measurement into the mean."""
        seconds = min(seconds, self._most_s)
        if self._mean_s == inf:
            self._mean_s = seconds
        else:
            self._mean_s += _WEIGHT * (seconds - self._mean_s)
        limit = self._limit_s if self.inline else self._limit_s * _RETURN
        self.inline = self._mean_s < limit
