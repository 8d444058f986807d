"""What the circuit is asked: profiles of its rows, and some of them whole, as the server has it.

Each window ends when it is fetched, and is given once more to who asks again with the mark before.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from scoring.profiles import Profile

_LEAST_PAUSE_S: Final = 0.05
_MOST_ROWS: Final = 16
_MOST_SAMPLES: Final = 32


class Looks:
    """Looks at some rows of some requests.

    Args:
        model: The model's name and version.
        name: Of its input.
        ratio: The part of the looks of which a row is kept whole.
        steady: Seconds of a clock that is never set.
    """

    def __init__(
        self,
        model: tuple[str, str],
        name: str,
        ratio: float = 0.0,
        *,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._about = {"model": model[0], "version": model[1]}
        self._name, self._ratio, self._steady = name, ratio, steady
        self._next = 0.0
        self._mark = secrets.randbelow(1 << 40) * 1000 + 2
        self._now, self._last = _Window(), _Window()

    def look(self, rows: Sequence[Sequence[float]], outputs: dict[str, list[Any]]) -> None:
        """Looks at a request that was answered, if it is time again."""
        if self._steady() < self._next:
            return
        self._next = self._steady() + _LEAST_PAUSE_S
        wide = len(rows[0]) > 1
        for row in rows[:_MOST_ROWS]:
            self._now.profile.add(
                {f"{self._name}[{at}]" if wide else self._name: v for at, v in enumerate(row)}
            )
        if random.random() < self._ratio:  # noqa: S311 - which rows is no secret
            sample = {**self._about, "at": time.time(), "inputs": {self._name: [rows[0]]}}
            first = {name: values[:1] for name, values in outputs.items()}
            self._now.samples.append({**sample, "outputs": first})

    def take(self, query: str) -> dict[str, Any]:
        """The window that ends now, for `GET /inputs?after=MARK`."""
        text = query.removeprefix("after=")
        got_lost = text == str(self._mark - 1)
        window, self._now = self._now, _Window()
        if got_lost:
            window = self._last.plus(window)
        else:
            self._mark += 1
        self._last = window
        profiles = [{**self._about, **window.profile.to_dict()}] if window.profile.rows else []
        return {"mark": self._mark, "profiles": profiles, "samples": list(window.samples)}


class _Window:
    def __init__(self) -> None:
        self.profile = Profile()
        self.samples: deque[dict[str, Any]] = deque(maxlen=_MOST_SAMPLES)

    def plus(self, other: _Window) -> _Window:
        self.profile.merge(other.profile)
        self.samples.extend(other.samples)
        return self
