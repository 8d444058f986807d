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
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from edge.controller.asking import Asking
from edge.controller.broker import Arrival, BrokerSettings, Came, Down, Link, Up
from edge.controller.leader import Answers, Leader, Permits, Signer
from edge.controller.ledger import Lease, LeaseLostError, Ledger
from edge.controller.monitoring import State
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
_AT_ONCE: Final = 250


class Ingest(Protocol):
    """Takes telemetry: `edge.telemetry.service.TelemetryService`. One thread."""

    def begin(self) -> None:
        """This controller leads from now on: another one may have stored something meanwhile."""
        ...

    def add(self, where: Topic, payload: bytes) -> None:
        """Takes a batch into the next commit.

        Raises:
            InputError: It is none, or of another device than its topic; or there is too much.
        """
        ...

    def commit(self) -> list[Ack]:
        """Writes what was added; what it returns is on the disk.

        Raises:
            WorkspaceError: It cannot be stored now; the devices send it again.
        """
        ...


class Chore(NamedTuple):
    """Something that the controller that leads does from time to time.

    Attributes:
        name: For the log.
        every_s: How often.
        run: Does it; raises FieldpostError where it cannot.
        apart: It may take long, and is done beside everything else.
    """

    name: str
    every_s: float
    run: Callable[[], object]
    apart: bool = False


class Controller:
    """Leads a fleet, or waits for its turn.

    Args:
        fleet: The records.
        broker: Where the devices are heard.
        signer: Signs what they are to do.
        permits: Says which packages may run.
        sources: Where devices fetch from, the best first.
        ingest: Takes telemetry; None: it is not acknowledged, and devices keep it.
        answers: What devices have told of requests, by which waves are judged.
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
        answers: Answers | None = None,
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
        self._answers = answers
        self._chores = tuple(chores)
        # Its own in each run: a controller that was killed does not keep the lease by its name.
        holder = f"{name or socket.gethostname()}-{secrets.token_hex(4)}"
        self.lease = Lease(fleet.database, holder, lasts_s=lease_s)
        self._ledger = Ledger(fleet.database, self.lease)
        self._closing = threading.Event()
        self._leading: _Leading | None = None
        self.connected = threading.Event()

    def close(self) -> None:
        """Lets `run` return soon; from any thread, or a signal's handler."""
        self._closing.set()

    def state(self) -> State:
        """How it does, for monitoring; from any thread."""
        leading = self._leading
        if leading is None:
            return State()
        return State(
            leads=True,
            is_up=leading.is_up,
            terms=self.lease.term,
            queues=leading.queues(),
            left_out=leading.ingesting.left_out if leading.ingesting else 0,
        )

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
                answers=self._answers,
                now=self._fleet.clock(),
            ),
            Link(self._broker, f"fieldpost-{self.lease.holder}", for_controller()),
            self._fleet.clock,
            self._chores,
            self._ingest,
        )
        self._leading = leading
        leading.link.start()
        try:
            while not self._closing.is_set():
                leading.turn()
                (self.connected.set if leading.is_up else self.connected.clear)()
        finally:
            self.connected.clear()
            leading.close()
            self._leading = None
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
        ingest: Ingest | None,
    ) -> None:
        self._ledger = ledger
        self._lease = lease
        self._leader = leader
        self.link = link
        self._clock = clock
        self.is_up = False
        self._up_at = 0.0
        self._ticked = self._looked = self._beat = time.monotonic()
        self._asking = Asking()
        listed = list(chores)
        self._chores = _Chores(one for one in listed if not one.apart)
        self._apart = _Apart(_Chores(one for one in listed if one.apart))
        self.ingesting = _Ingesting(ingest, link) if ingest else None

    def close(self) -> None:
        """Ends the connection, once what has come of telemetry is stored."""
        self.link.close()
        self._apart.close()
        if self.ingesting:
            self.ingesting.close()

    def queues(self) -> dict[str, int]:
        """How much waits where."""
        found = {"from_broker": self.link.waiting, "to_broker": self.link.backlog}
        return found | ({"telemetry": self.ingesting.waiting} if self.ingesting else {})

    def turn(self) -> None:
        """Takes in what has come, and says what follows."""
        for arrival in self.link.take(TICK_S):
            self._arrive(arrival)
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
        self._leader.refresh += self._asking.due(passed, self._leader.retained_topics)
        self._chores.do(passed)

    def _flush(self) -> None:
        changes = self._leader.changes()
        if changes is not None:
            if not self._ledger.write(changes, self._leader.seen):
                self._leader.reload(self._ledger.load(), self._clock())
                return  # what follows from both is written in the next turn
            self._leader.written()
        elif self._leader.outgoing:
            self._ledger.require_lease()  # a machine that was asleep has seen no time go by
        outgoing, self._leader.outgoing = self._leader.outgoing, []
        for message in outgoing:
            self.link.publish(str(message.to), message.payload, retain=message.to.retained)
        refresh, self._leader.refresh = self._leader.refresh, []
        for asked in refresh:
            self.link.refresh(str(asked))

    # -- what comes

    def _arrive(self, arrival: Arrival) -> None:
        if isinstance(arrival, Down):
            if self.is_up or not self._up_at:
                logger.warning("broker down reason=%s", arrival.reason)
            self.is_up, self._up_at = False, self._up_at or -SETTLE_S
            self._asking.lost()
        elif isinstance(arrival, Up):
            logger.info("broker up")
            self.is_up, self._up_at = True, time.monotonic()
            self._asking.connected(self._up_at)
            self._leader.publish_all(self._clock())
        else:
            self._hear(arrival)

    def _hear(self, came: Came) -> None:
        where = parse(came.topic)
        if where is None or not came.payload:
            return
        try:
            self._dispatch(where, came)
        except InputError as error:
            logger.warning("message dropped topic=%s reason=%s", came.topic, error)

    def _dispatch(self, where: Topic, came: Came) -> None:
        now = self._clock()
        if where.kind == "reported":
            report = messages.decode(came.payload, Reported)
            self._leader.reported(where, report, now, retained=came.retained)
        elif where.kind == "status":
            status = messages.decode(came.payload, Status)
            self._leader.status(where, status, now, retained=came.retained)
        elif where.kind == "cmd/res":
            self._leader.result(where, messages.decode(came.payload, CommandResult), now)
        elif self.ingesting is not None and self._leader.is_known(where, now):
            self.ingesting.put(where, came.payload)


class _Chores:
    """What is done from time to time; at once at first."""

    def __init__(self, chores: Iterable[Chore]) -> None:
        self._due = dict.fromkeys(chores, 0.0)

    def do(self, passed: float) -> None:
        """Does what is due."""
        for chore, due in self._due.items():
            if passed >= due:
                self._due[chore] = passed + chore.every_s
                self._do(chore)

    def _do(self, chore: Chore) -> None:
        try:
            chore.run()
        except FieldpostError as error:
            logger.error("chore failed name=%s reason=%s", chore.name, error)  # noqa: TRY400


class _Apart:
    """Chores on a thread of their own."""

    def __init__(self, chores: _Chores) -> None:
        self._chores = chores
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet-chores", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends after what is being done."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(LOOK_S):
            try:
                self._chores.do(time.monotonic())
            except Exception:  # the others are done all the same
                logger.exception("a chore failed")


class _Ingesting:
    """Stores telemetry on a thread of its own: rollouts do not wait for it."""

    def __init__(self, ingest: Ingest, link: Link) -> None:
        self._ingest = ingest
        self._link = link
        self._queue: queue.Queue[tuple[Topic, bytes] | None] = queue.Queue(_MOST_TELEMETRY)
        self.left_out = 0
        self._thread = threading.Thread(target=self._run, name="fleet-ingest", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many batches wait."""
        return self._queue.qsize()

    def put(self, where: Topic, payload: bytes) -> None:
        """Takes a batch; where there is no room the device sends it again."""
        try:
            self._queue.put_nowait((where, payload))
        except queue.Full:
            self.left_out += 1

    def close(self) -> None:
        """Stores what was taken, and ends."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_over = False
        self._begin()
        while not is_over:
            first = self._queue.get()
            taken = [first, *self._rest()]
            is_over = None in taken
            try:
                self._store([one for one in taken if one is not None])
            except Exception:  # whatever it is: devices keep what is not acknowledged
                logger.exception("telemetry could not be stored")

    def _begin(self) -> None:
        try:
            self._ingest.begin()
        except Exception:  # only what was is not known then
            logger.exception("telemetry of before could not be read")

    def _rest(self) -> Iterator[tuple[Topic, bytes] | None]:
        """What waits besides: one sync is enough for all of it."""
        with suppress(queue.Empty):
            for _ in range(_AT_ONCE - 1):
                yield self._queue.get_nowait()

    def _store(self, taken: list[tuple[Topic, bytes]]) -> None:
        sites = {}
        for where, payload in taken:
            try:
                self._ingest.add(where, payload)
                sites[where.device] = where.site
            except FieldpostError as error:
                logger.warning("telemetry refused device=%s reason=%s", where.device, error)
        try:
            acks = self._ingest.commit()
        except FieldpostError as error:
            logger.error("telemetry not stored reason=%s", error)  # noqa: TRY400 - no defect
            return
        for ack in acks:
            to = topic(sites[ack.device], ack.device, "ack")
            self._link.publish(str(to), messages.encode(ack), retain=False)
