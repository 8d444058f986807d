"""Collecting on the device: what each module answered and saw, and how the device does.

Asks the workers on loopback, in time and in bytes limited; what one of them does not answer costs
nothing but its own record.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from edge.protocol.topics import Class
from edge.telemetry import metrics, resources
from edge.telemetry.metrics import Traffic
from edge.telemetry.spool import Spool
from scoring.errors import InputError

logger = logging.getLogger(__name__)

METRICS: Final = "/metrics"
INPUTS: Final = "/inputs"

_OK: Final = 200
_MOST_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 3.0


class Served(NamedTuple):
    """A module that answers.

    Attributes:
        port: Where, on loopback.
        package: The digest of what answers.
    """

    port: int
    package: str


class Every(msgspec.Struct, frozen=True, kw_only=True):
    """How often is looked.

    Attributes:
        requests_s: At what modules have answered.
        inputs_s: At what they were asked with.
        resources_s: At the device.
    """

    requests_s: float = 30.0
    inputs_s: float = 300.0
    resources_s: float = 60.0


class Collector:
    """Looks at the device and its modules, and puts what it sees into the spool; one thread.

    Args:
        spool: Where it goes.
        modules: Name to what answers now.
        folder: Of its disk is told how much is free.
        every: How often.
        steady: Seconds of a clock that is never set.
        fetch: Asks a port for a path; None where there is no answer.
    """

    def __init__(
        self,
        spool: Spool,
        modules: Callable[[], Mapping[str, Served]],
        folder: Path,
        *,
        every: Every | None = None,
        steady: Callable[[], float] = time.monotonic,
        fetch: Callable[[int, str], bytes | None] | None = None,
    ) -> None:
        self._spool = spool
        self._modules = modules
        self._every = every or Every()
        self._steady = steady
        self._fetch = fetch or ask
        self._resources = resources.Resources(folder)
        self._seen: dict[tuple[str, Served], Traffic] = {}
        self._marks: dict[tuple[str, Served], int] = {}
        now = steady()
        self._due = {
            self._look_at_requests: now + self._every.requests_s,
            self._look_at_inputs: now + self._every.inputs_s,
            self._look_at_device: now,
        }
        self._requests_at = now

    def tick(self) -> None:
        """Does what is due."""
        now = self._steady()
        pauses = (self._every.requests_s, self._every.inputs_s, self._every.resources_s)
        for (look, due), pause in zip(list(self._due.items()), pauses, strict=True):
            if now >= due:
                self._due[look] = now + pause
                look()

    def wait_s(self) -> float:
        """For how long nothing is due."""
        return max(0.0, min(self._due.values()) - self._steady())

    def left(self, name: str, served: Served, page: bytes) -> None:
        """What answered for a module has shown this page last, before it was replaced."""
        self._take_page(name, served, page, 0.0)

    def last(self) -> None:
        """A look at what modules have answered, before all of them end."""
        self._look_at_requests()

    def _look_at_requests(self) -> None:
        now = self._steady()
        window, self._requests_at = now - self._requests_at, now
        modules = self._modules()
        for name, served in modules.items():
            self._look_at_module(name, served, window)
        there = set(modules.items())
        self._seen = {key: seen for key, seen in self._seen.items() if key in there}
        self._marks = {key: mark for key, mark in self._marks.items() if key in there}

    def _look_at_module(self, name: str, served: Served, window_s: float) -> None:
        page = self._fetch(served.port, METRICS)
        if page is not None:
            self._take_page(name, served, page, window_s)

    def _take_page(self, name: str, served: Served, page: bytes, window_s: float) -> None:
        found = metrics.traffic(metrics.parse(page.decode(errors="replace")))
        new = found.since(self._seen.get((name, served), Traffic()))
        self._seen[name, served] = found
        if not (new.requests or new.rejected):
            return
        data = {"module": name, "package": served.package, "window_s": round(window_s, 3)}
        self._put("metric", "requests", data | new.to_dict())

    def _look_at_inputs(self) -> None:
        """What came in since the last look; a worker that keeps no statistics has no such page."""
        for name, served in self._modules().items():
            key = name, served
            page = self._fetch(served.port, f"{INPUTS}?after={self._marks.get(key, 0)}")
            found = _decoded(page)
            if found is None:
                continue
            self._marks[key] = int(found.get("mark", 0))
            about = {"module": name, "package": served.package}
            for profile in _objects(found.get("profiles")):
                self._put("metric", "inputs", about | profile)
            for sample in _objects(found.get("samples")):
                self._put("debug", "sample", about | sample)

    def _look_at_device(self) -> None:
        counts = self._spool.counts()
        spool: dict[str, Any] = {"bytes": counts.size, "waiting": sum(counts.waiting.values())}
        if counts.dropped:
            spool["dropped"] = dict(counts.dropped)
        if counts.quarantined or counts.damaged:
            spool |= {"quarantined": counts.quarantined, "damaged": counts.damaged}
        data = {**self._resources.look(), "agent": resources.own(), "spool": spool}
        self._put("metric", "resources", data)

    def _put(self, name: Class, kind: str, data: Mapping[str, Any]) -> None:
        try:
            self._spool.put(name, kind, data)
        except InputError as error:
            logger.warning("telemetry_left_out kind=%s reason=%s", kind, error)


def ask(port: int, path: str, timeout_s: float = _TIMEOUT_S) -> bytes | None:
    """What a worker on loopback answers to a GET; None where it does not, or says too much."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            data = answer.read(_MOST_BYTES + 1)
        except (OSError, http.client.HTTPException):
            return None
    return data if answer.status == _OK and len(data) <= _MOST_BYTES else None


def _decoded(page: bytes | None) -> dict[str, Any] | None:
    if page is None:
        return None
    try:
        return msgspec.json.decode(page, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None


def _objects(found: object) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
