"""The controller's process: leads when it is its turn, hears devices, writes, and tells devices.

One loop does it all: what has come is taken in, what follows is written in one transaction, and
only then said. Nothing is kept but in the records and at the broker: it may be killed at any time.
"""

from __future__ import annotations

import logging
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from edge.controller.broker import Arrival, BrokerSettings, Came, Down, Link, Up
from edge.controller.leader import Leader, Permits, Signer
from edge.controller.ledger import Lease, LeaseLostError, Ledger
from edge.controller.records import Fleet
from edge.protocol import messages
from edge.protocol.messages import Ack, CommandResult, Reported, Source, Status
from edge.protocol.topics import Topic, for_controller, parse, topic
from scoring.errors import FieldpostError, InputError, WorkspaceError

logger = logging.getLogger(__name__)

TICK_S: Final = 0.25
LOOK_S: Final = 0.5
"""How often is looked for what people changed."""

SETTLE_S: Final = 2.0
"""After a connection: what the broker has kept comes before anybody is judged."""

_MOST_TELEMETRY: Final = 1000


class Ingest(Protocol):
    """Takes telemetry."""

    def take(self, device: str, payload: bytes) -> Ack | None:
        """Stores a batch, and says what of it is on the disk; None for nothing.

        Args:
            device: Whose topic it came on: the batch has to be of the same.
            payload: As it came.

        Raises:
            InputError: It is none.
            WorkspaceError: It cannot be stored now; the device sends it again.
        """
        ...


class Chore(NamedTuple):
    """Something that the controller that leads does from time to time.

    Attributes:
        name: For the log.
        every_s: How often.
        run: Does it; raises FieldpostError where it cannot.
    """

    name: str
    every_s: float
    run: Callable[[], object]


class Controller:
    """Leads a fleet, or waits for its turn.

    Args:
        fleet: The records.
        broker: Where the devices are heard.
        signer: Signs what they are to do.
        permits: Says which packages may run.
        sources: Where devices fetch from, the best first.
        ingest: Takes telemetry; None: it is not acknowledged, and devices keep it.
        chores: Done while this one leads.
        lease_s: Who is silent for so long leads no more.
        name: Of this controller among others.
    """

    def __init__(
        self,
        fleet: Fleet,
        broker: BrokerSettings,
        *,
        signer: Signer,
        permits: Permits,
        sources: Iterable[Source] = (),
        ingest: Ingest | None = None,
        chores: Iterable[Chore] = (),
        lease_s: float = 10.0,
        name: str = "",
    ) -> None:
        self._fleet = fleet
        self._broker = broker
        self._signer = signer
        self._permits = permits
        self._sources = tuple(sources)
        self._ingest = ingest
        self._chores = tuple(chores)
        # Its own in each run: a controller that was killed does not keep the lease by its name.
        holder = f"{name or socket.gethostname()}-{secrets.token_hex(4)}"
        self.lease = Lease(fleet.database, holder, lasts_s=lease_s)
        self._ledger = Ledger(fleet.database, self.lease)
        self._closing = threading.Event()
        self.connected = threading.Event()

    def close(self) -> None:
        """Lets `run` return soon; from any thread, or a signal's handler."""
        self._closing.set()

    def run(self) -> None:
        """Leads whenever nobody else does, until `close`."""
        while not self._closing.is_set():
            try:
                if self.lease.keep():
                    self._lead()
            except LeaseLostError:
                logger.warning("lease lost holder=%s", self.lease.holder)
            except WorkspaceError as error:
                logger.error("records fail reason=%s", error)  # noqa: TRY400 - no defect of ours
            self._closing.wait(self.lease.lasts_s / 4)

    def _lead(self) -> None:
        logger.info("leading holder=%s term=%d", self.lease.holder, self.lease.term)
        leading = _Leading(
            self._ledger,
            self.lease,
            Leader(
                self._ledger.load(),
                signer=self._signer,
                permits=self._permits,
                sources=self._sources,
                now=self._fleet.clock(),
            ),
            Link(self._broker, f"fieldpost-{self.lease.holder}", for_controller()),
            self._fleet.clock,
            self._chores,
        )
        ingesting = _Ingesting(self._ingest, leading.link) if self._ingest else None
        leading.link.start()
        try:
            while not self._closing.is_set():
                leading.turn(ingesting)
                (self.connected.set if leading.is_up else self.connected.clear)()
        finally:
            self.connected.clear()
            leading.link.close()
            if ingesting:
                ingesting.close()
            with suppress(FieldpostError):
                self.lease.let_go()


class _Leading:
    """One term of one controller."""

    def __init__(
        self,
        ledger: Ledger,
        lease: Lease,
        leader: Leader,
        link: Link,
        clock: Callable[[], float],
        chores: Iterable[Chore],
    ) -> None:
        self._ledger = ledger
        self._lease = lease
        self._leader = leader
        self.link = link
        self._clock = clock
        self.is_up = False
        self._up_at = 0.0
        self._ticked = self._looked = self._beat = time.monotonic()
        self._chores = dict.fromkeys(chores, 0.0)

    def turn(self, ingesting: _Ingesting | None) -> None:
        """Takes in what has come, and says what follows."""
        for arrival in self.link.take(TICK_S):
            self._arrive(arrival, ingesting)
        passed = time.monotonic()
        if passed - self._beat > self._lease.lasts_s / 4:
            self._keep_lease(passed)
        if passed - self._looked > LOOK_S:
            self._looked = passed
            self._look()
        if passed - self._ticked > TICK_S:
            self._ticked = passed
            self._tick(passed)
        self._flush()

    def _keep_lease(self, passed: float) -> None:
        self._beat = passed
        if not self._lease.keep(self._leader.watched_at):
            raise LeaseLostError("Another controller leads this fleet now.")

    def _look(self) -> None:
        if self._ledger.changes() != self._leader.seen:
            self._leader.reload(self._ledger.load(), self._clock())

    def _tick(self, passed: float) -> None:
        now = self._clock()
        # Without a connection nobody is watched; silence then is ours.
        if self.is_up and passed - self._up_at > SETTLE_S:
            self._leader.tick(now)
        self._leader.send_waiting(now)
        for chore, due in self._chores.items():
            if passed >= due:
                self._chores[chore] = passed + chore.every_s
                _do(chore)

    def _flush(self) -> None:
        changes = self._leader.changes()
        if changes is not None:
            if not self._ledger.write(changes, self._leader.seen):
                self._leader.reload(self._ledger.load(), self._clock())
                return  # what follows from both is written in the next turn
            self._leader.written()
        outgoing, self._leader.outgoing = self._leader.outgoing, []
        for message in outgoing:
            self.link.publish(str(message.to), message.payload, retain=message.to.retained)
        refresh, self._leader.refresh = self._leader.refresh, []
        for asked in refresh:
            self.link.refresh(str(asked))

    # -- what comes

    def _arrive(self, arrival: Arrival, ingesting: _Ingesting | None) -> None:
        if isinstance(arrival, Down):
            if self.is_up or not self._up_at:
                logger.warning("broker down reason=%s", arrival.reason)
            self.is_up, self._up_at = False, self._up_at or -SETTLE_S
        elif isinstance(arrival, Up):
            logger.info("broker up")
            self.is_up, self._up_at = True, time.monotonic()
            self._leader.publish_all(self._clock())
        else:
            self._hear(arrival, ingesting)

    def _hear(self, came: Came, ingesting: _Ingesting | None) -> None:
        where = parse(came.topic)
        if where is None or not came.payload:
            return
        try:
            self._dispatch(where, came, ingesting)
        except InputError as error:
            logger.warning("message dropped topic=%s reason=%s", came.topic, error)

    def _dispatch(self, where: Topic, came: Came, ingesting: _Ingesting | None) -> None:
        now = self._clock()
        if where.kind == "reported":
            report = messages.decode(came.payload, Reported)
            self._leader.reported(where, report, now, retained=came.retained)
        elif where.kind == "status":
            status = messages.decode(came.payload, Status)
            self._leader.status(where, status, now, retained=came.retained)
        elif where.kind == "cmd/res":
            self._leader.result(where, messages.decode(came.payload, CommandResult), now)
        elif ingesting is not None and self._leader.is_known(where, now):
            ingesting.put(where, came.payload)


def _do(chore: Chore) -> None:
    try:
        chore.run()
    except FieldpostError as error:
        logger.error("chore failed name=%s reason=%s", chore.name, error)  # noqa: TRY400


class _Ingesting:
    """Stores telemetry on a thread of its own: rollouts do not wait for it."""

    def __init__(self, ingest: Ingest, link: Link) -> None:
        self._ingest = ingest
        self._link = link
        self._queue: queue.Queue[tuple[Topic, bytes] | None] = queue.Queue(_MOST_TELEMETRY)
        self._thread = threading.Thread(target=self._run, name="fleet-ingest", daemon=True)
        self._thread.start()

    def put(self, where: Topic, payload: bytes) -> None:
        """Takes a batch; where there is no room the device sends it again."""
        with suppress(queue.Full):
            self._queue.put_nowait((where, payload))

    def close(self) -> None:
        """Stores what was taken, and ends."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            where, payload = item
            try:
                ack = self._ingest.take(where.device, payload)
            except FieldpostError as error:
                logger.warning("telemetry refused device=%s reason=%s", where.device, error)
                continue
            if ack is not None:
                to = topic(where.site, where.device, "ack")
                self._link.publish(str(to), messages.encode(ack), retain=False)
