"""What a device has to tell: looked at, put into the spool, sent, and forgotten when it is stored.

One thread does all of it, so that no disk, no worker and no controller holds up what serves. What
others hand over waits in a queue with an end; what has no room there is counted and left out.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from edge.agent.config import Told
from edge.protocol.messages import ModuleState
from edge.protocol.topics import Class, Kind, of_class
from edge.telemetry.collect import METRICS, Collector, Every, Served, ask
from edge.telemetry.limits import Limits
from edge.telemetry.spool import Spool
from edge.telemetry.uplink import Uplink
from scoring.errors import FieldpostError

logger = logging.getLogger(__name__)

FOLDER: Final = "spool"
_MOST_WAITING: Final = 1000
_TEND_S: Final = 60.0
_AFTER_FAULT_S: Final = 5.0
_LEAVING_S: Final = 1.0


class Says(Protocol):
    """Where batches go: the link."""

    def send(self, kind: Kind, payload: bytes, sent: Callable[[bool], object]) -> bool:
        """Sends a message; whether there was room for it."""
        ...


class _Record(NamedTuple):
    name: Class
    kind: str
    data: Mapping[str, Any]
    at: float


class _Ack(NamedTuple):
    payload: bytes


class _Heard(NamedTuple):
    pass


class _Left(NamedTuple):
    module: str
    served: Served
    page: bytes


_Item = _Record | _Ack | _Heard | _Left


class Telling:
    """What one device tells.

    Args:
        state: The agent's folder.
        device: Its name.
        told: How often is looked, and how much is kept.
        modules: Name to what answers now; from any thread.
        clock: Seconds since the epoch, as far as the device knows.
        steady: Seconds of a clock that is never set.
    """

    def __init__(
        self,
        state: Path,
        device: str,
        told: Told,
        modules: Callable[[], Mapping[str, Served]],
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._device, self._told = state, device, told
        self._modules = modules
        self._clock, self._steady = clock, steady
        self._items: queue.Queue[_Item] = queue.Queue(_MOST_WAITING)
        self._news = threading.Condition()
        self._awake = self._closed = False
        self._says: Says | None = None
        self._is_up, self._changes = False, 0
        self.left_out = 0
        self._thread = threading.Thread(target=self._run, name="telling", daemon=True)

    def begin(self, says: Says) -> None:
        """Begins to look and to tell."""
        self._says = says
        if self._told.on:
            self._thread.start()

    def close(self) -> None:
        """Looks at modules a last time, and ends; what was not sent is sent after the next begin.

        To be called while the modules still answer.
        """
        with self._news:
            self._closed = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()

    # -- from any thread; nothing here waits

    def connected(self, is_up: bool) -> None:
        """The link is up, or down."""
        with self._news:
            self._is_up, self._changes = is_up, self._changes + 1
        self._wake()

    def came(self, payload: bytes) -> None:
        """The controller has something on its disk."""
        self._put(_Ack(payload))

    def heard(self) -> None:
        """The controller has said something: it is there."""
        self._put(_Heard())

    def tell(self, name: Class, kind: str, data: Mapping[str, Any]) -> None:
        """Has something told."""
        self._put(_Record(name, kind, data, self._clock()))

    def leaving(self, module: str, port: int, package: str) -> None:
        """What answers for a module is about to be replaced: what it has answered is not lost.

        Asks it, for a second at most.
        """
        if not self._thread.is_alive():
            return
        page = ask(port, METRICS, _LEAVING_S)
        if page is not None:
            self._put(_Left(module, Served(port, package), page))

    def moved(self, before: Mapping[str, ModuleState], after: Mapping[str, ModuleState]) -> None:
        """Tells what has changed about modules: what is wrong as an alarm, the rest as a status."""
        for module, now in after.items():
            was = before.get(module)
            if was is None or (was.phase, was.package) != (now.phase, now.package):
                self._tell_module(module, now)

    def _tell_module(self, module: str, now: ModuleState) -> None:
        data = {"module": module, "phase": now.phase, "package": now.package, "wanted": now.wanted}
        if now.failure is not None:
            failure = {"code": now.failure.code, "message": now.failure.message}
            data["failure"] = {**failure, "phase": now.failure.phase}  # type: ignore[assignment]
        is_bad = now.phase in {"failed", "reverted"}
        self.tell("alarm" if is_bad else "status", "module", data)

    def _put(self, item: _Item) -> None:
        if not self._told.on:
            return
        try:
            self._items.put_nowait(item)
        except queue.Full:
            self.left_out += 1
        self._wake()

    def _wake(self) -> None:
        with self._news:
            self._awake = True
            self._news.notify_all()

    # -- the thread

    def _run(self) -> None:
        work: _Work | None = None
        while not self._closed:
            try:
                work = work or self._open()
                self._sleep(work.turn())
            except Exception:  # whatever it is: what serves does not depend on telling
                logger.exception("telemetry_failed")
                self._pause()
        if work is not None:
            work.close()

    def _sleep(self, seconds: float) -> None:
        """Until something comes, but not for longer."""
        with self._news:
            self._news.wait_for(lambda: self._awake or self._closed, seconds)
            self._awake = False

    def _pause(self) -> None:
        """After a fault nothing but the end is worth waking up for."""
        with self._news:
            self._news.wait_for(lambda: self._closed, _AFTER_FAULT_S)

    def _open(self) -> _Work:
        told = self._told
        limits = Limits(
            most_bytes=told.most_bytes,
            alarm_s=told.alarm_s,
            status_s=told.status_s,
            metric_s=told.metric_s,
            debug_s=told.debug_s,
        )
        spool = Spool(
            self._state / FOLDER, self._device, limits, clock=self._clock, steady=self._steady
        )
        every = Every(
            requests_s=told.requests_s, inputs_s=told.inputs_s, resources_s=told.resources_s
        )
        collector = Collector(spool, self._modules, self._state, every=every, steady=self._steady)
        assert self._says is not None
        return _Work(self, spool, collector, Uplink(spool, steady=self._steady), self._says)

    @property
    def link(self) -> tuple[bool, int]:
        """Whether the link is up, and how often that has changed."""
        with self._news:
            return self._is_up, self._changes

    def take(self) -> _Item | None:
        """What came first of what waits."""
        try:
            return self._items.get_nowait()
        except queue.Empty:
            return None


class _Work:
    """All that belongs to the thread."""

    def __init__(
        self, telling: Telling, spool: Spool, collector: Collector, uplink: Uplink, says: Says
    ) -> None:
        self._telling, self._spool = telling, spool
        self._collector, self._uplink, self._says = collector, uplink, says
        self._online, self._changes = False, 0
        self._tend_at = time.monotonic() + _TEND_S

    def turn(self) -> float:
        """Does what is to be done; for how long nothing else is, if nothing comes."""
        self._follow_link()
        self._take_in()
        self._collector.tick()
        self._tend()
        for batch in self._uplink.due():
            self._says.send(of_class(batch.name), batch.payload, lambda _: None)
        waits = (self._collector.wait_s(), self._uplink.wait_s(), self._tend_at - time.monotonic())
        return max(0.05, min(waits))

    def close(self) -> None:
        """A last look, while the modules still answer."""
        try:
            self._take_in()
            self._collector.last()
        except Exception:
            logger.exception("telemetry_failed")
        self._spool.close()

    def _follow_link(self) -> None:
        is_up, changes = self._telling.link
        if changes == self._changes:
            return
        self._changes = changes
        if self._online:  # it may have come back already
            self._uplink.disconnected()
        if is_up:
            self._uplink.connected()
        self._online = is_up

    def _take_in(self) -> None:
        records: list[_Record] = []
        while (item := self._telling.take()) is not None:
            if isinstance(item, _Record):
                records.append(item)
                continue
            try:
                self._take_one(item)
            except FieldpostError as error:
                logger.warning("telemetry_left_out reason=%s", error)
        self._keep(records)

    def _keep(self, records: list[_Record]) -> None:
        """With one write where that can be; one that is no good does not take the others along."""
        try:
            self._spool.put_many(records)
        except FieldpostError as error:
            if len(records) > 1:
                for record in records:
                    self._keep([record])
            else:
                logger.warning("telemetry_left_out reason=%s", error)

    def _take_one(self, item: _Ack | _Heard | _Left) -> None:
        match item:
            case _Ack():
                self._uplink.acked(item.payload)
            case _Heard():
                self._uplink.heard()
            case _Left():
                self._collector.left(item.module, item.served, item.page)

    def _tend(self) -> None:
        if time.monotonic() >= self._tend_at:
            self._tend_at = time.monotonic() + _TEND_S
            self._spool.tend()
