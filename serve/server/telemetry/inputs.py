"""What a model is asked: profiles of its inputs, and some requests whole, for who comes for them.

Off unless the settings say `inputs=on`. Then some rows of some runs are looked at, at most twenty
runs in a second, however many there are; requests are never kept on a disk here. Each model's
profile covers a window that ends when it is fetched (`GET /inputs?after=MARK`), and is given once
more to who asks again with the mark before, so that an answer that got lost loses nothing.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from scoring.http import Response
from scoring.profiles import Column, Profile

if TYPE_CHECKING:
    from serve.server.exchange import Exchange

logger = logging.getLogger(__name__)

PATH: Final = "/inputs"

_LEAST_PAUSE_S: Final = 0.05
_MOST_ROWS: Final = 16
_MOST_COLUMNS: Final = 64
_MOST_MODELS: Final = 64
_MOST_SAMPLES: Final = 32
_MOST_SAMPLE_ITEMS: Final = 4096

Predict = Callable[[Any], dict[str, Any]]
Key = tuple[str, str]


class _Window(NamedTuple):
    profiles: dict[Key, Profile]
    samples: deque[dict[str, Any]]

    def add(self, other: _Window) -> None:
        for key, profile in other.profiles.items():
            self.profiles.setdefault(key, Profile()).merge(profile)
        self.samples.extend(other.samples)


class InputWatch:
    """Looks at what models are asked; any thread.

    Args:
        ratio: The part of the runs that are looked at of which a row is kept whole.
        steady: Seconds of a clock that is never set.
    """

    def __init__(self, ratio: float = 0.0, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._ratio = ratio
        self._steady = steady
        self._lock = threading.Lock()
        self._next = 0.0
        # Workers that answer in turn do not take one another's marks for their own.
        self._mark = secrets.randbelow(1 << 40) * 1000 + 2
        self._now = _empty()
        self._last = _empty()

    def watched(self, name: str, version: str, predict: Predict) -> Predict:
        """The model, and a look at what it is asked."""

        def run(inputs: Any) -> dict[str, Any]:
            outputs = predict(inputs)
            if self._steady() >= self._next:
                self._look((name, version), inputs, outputs)
            return outputs

        return run

    def take(self, after: int) -> dict[str, Any]:
        """The window that ends now.

        Args:
            after: The mark that was given last: what came with it has arrived.
        """
        with self._lock:
            window, self._now = self._now, _empty()
            if after == self._mark - 1:
                self._last.add(window)
                window = self._last
            self._last = window
            if after != self._mark - 1:
                self._mark += 1
            mark = self._mark
            return {
                "mark": mark,
                "profiles": [
                    {"model": name, "version": version, **profile.to_dict()}
                    for (name, version), profile in window.profiles.items()
                ],
                "samples": list(window.samples),
            }

    def route(self, exchange: Exchange) -> None:
        """Answers `GET /inputs`."""
        text = exchange.query.removeprefix("after=")
        after = int(text) if text.isdecimal() and text.isascii() and len(text) < 19 else 0  # noqa: PLR2004 - 64 bits
        body = msgspec.json.encode(self.take(after))
        exchange.respond(Response(200, body, [("content-type", "application/json")]))

    def _look(self, key: Key, inputs: Any, outputs: Any) -> None:
        if not self._lock.acquire(blocking=False):
            return  # another thread looks at its own run
        try:
            self._next = self._steady() + _LEAST_PAUSE_S
            if key in self._now.profiles or len(self._now.profiles) < _MOST_MODELS:
                self._now.profiles.setdefault(key, Profile()).merge(profile_of(inputs))
            if self._ratio and random.random() < self._ratio:  # noqa: S311 - which rows is no secret
                self._keep(key, inputs, outputs)
        except Exception:  # a look at a request may not cost its answer
            logger.exception("Inputs of %s could not be looked at", key[0])
            self._next = self._steady() + 60.0
        finally:
            self._lock.release()

    def _keep(self, key: Key, inputs: Any, outputs: Any) -> None:
        sample = {"model": key[0], "version": key[1], "at": time.time()}
        for name, arrays in (("inputs", inputs), ("outputs", outputs)):
            row = {label: np.asarray(array)[:1] for label, array in arrays.items()}
            if sum(array.size for array in row.values()) > _MOST_SAMPLE_ITEMS:
                return
            sample[name] = {label: _listed(array) for label, array in row.items()}
        self._now.samples.append(sample)


def profile_of(inputs: Mapping[str, Any]) -> Profile:
    """The profile of the first rows of a run's inputs.

    Args:
        inputs: Name to an array whose first axis is that of rows.
    """
    found = Profile()
    for name, array in inputs.items():
        rows = np.asarray(array)[:_MOST_ROWS]
        found.rows = max(found.rows, len(rows) if rows.ndim else 1)
        for label, values in _columns(name, rows):
            column = found.columns.setdefault(label, Column())
            for value in values:
                column.add(value)
    return found


def _columns(name: str, rows: np.ndarray[Any, Any]) -> list[tuple[str, list[Any]]]:
    """Columns by name; of what has too many (an image, say) some of the values, as one."""
    table = rows.reshape(len(rows), -1) if rows.ndim > 1 else rows.reshape(-1, 1)
    width = table.shape[1]
    if width == 1:
        return [(name, _listed(table[:, 0]))]
    if width <= _MOST_COLUMNS:
        return [(f"{name}[{at}]", _listed(table[:, at])) for at in range(width)]
    step = -(-table.size // (_MOST_COLUMNS * 4))
    return [(name, _listed(table.reshape(-1)[::step]))]


def _listed(array: np.ndarray[Any, Any]) -> list[Any]:
    """As numbers, texts, and truth values."""
    if array.dtype.kind in "OSU":
        texts = array.reshape(-1).tolist()
        return [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in texts]
    found: list[Any] = array.tolist()
    return found


def _empty() -> _Window:
    return _Window({}, deque(maxlen=_MOST_SAMPLES))
