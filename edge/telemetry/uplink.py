"""What of the spool goes out when: a few batches in flight, again until acknowledged. No I/O.

The broker's own acknowledgement says that the broker has it; only the controller's says that it is
stored. A batch that is never acknowledged while others are is halved until the record that nobody
takes stands alone, and that is put aside: it neither blocks the others nor goes round for ever.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from edge.protocol.messages import Ack, decode
from edge.protocol.topics import CLASSES, Class
from edge.telemetry.spool import Batch, Spool

MOST_IN_FLIGHT: Final = 8
MOST_TRIES: Final = 3

_TIMEOUT_S: Final = 20.0
_LONGEST_S: Final = 600.0
_LINGER_S: Final[dict[Class, float]] = {"alarm": 0.0, "status": 0.0, "metric": 15.0, "debug": 30.0}
_FULL: Final = 100
_ALONE_S: Final = 5.0
_MOST_SILENCES: Final = 10


class Again(NamedTuple):
    """Records that have to go once more.

    Attributes:
        name: Their class.
        first: Their first id.
        last: Their last id.
        tries: How often they failed when others did not.
        mark: How many acknowledgements had come when they failed last.
    """

    name: Class
    first: int
    last: int
    tries: int = 0
    mark: int = 0


class Flight(NamedTuple):
    """A batch that waits for its acknowledgement.

    Attributes:
        batch: That was sent.
        until: When it counts as lost, by the steady clock.
        tries: As in `Again`.
        mark: How many acknowledgements had come when it was sent; of a suspect, when it failed.
        suspect: It goes alone, since it may be what cuts the link.
        missing: The numbers that are not acknowledged.
        sent_at: By the steady clock.
    """

    batch: Batch
    until: float
    tries: int
    mark: int
    suspect: bool
    missing: frozenset[int]
    sent_at: float


class Uplink:
    """Says what is to be published; one thread.

    Args:
        spool: What is to be told.
        most_in_flight: Batches without an acknowledgement; it begins with one after a connection.
        timeout_s: After which a batch goes again.
        steady: Seconds of a clock that is never set.
        jitter: A number from 0 to 1.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        most_in_flight: int = MOST_IN_FLIGHT,
        timeout_s: float = _TIMEOUT_S,
        steady: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.spool = spool
        self._most = most_in_flight
        self._timeout_s = timeout_s
        self._steady, self._jitter = steady, jitter
        self._online = False
        self._flights: list[Flight] = []
        self._again: list[Again] = []
        self._suspects: list[Again] = []
        self._after = dict.fromkeys(CLASSES, 0)
        self._sent_at = dict.fromkeys(CLASSES, float("-inf"))
        self._window = 1
        self._silences = 0
        self._answered = self._answered_here = 0
        self._suspects_at = 0
        self._shared_s = 0.0
        self._not_before = 0.0

    @property
    def in_flight(self) -> int:
        """How many batches wait for an acknowledgement."""
        return len(self._flights)

    def connected(self) -> None:
        """The link to the broker is up: all that waits may go."""
        self._online = True
        self._window = 1
        self._silences = self._answered_here = 0
        self._suspects_at = self._answered + 1
        self._not_before = self._steady()
        self._sent_at = dict.fromkeys(CLASSES, float("-inf"))

    def disconnected(self) -> None:
        """The link is down: what is in flight goes again."""
        self._online = False
        flights, self._flights = self._flights, []
        # Where others were answered it may be one of these that cuts the link: each goes alone.
        suspicious = self._answered_here > 0
        for flight in flights:
            alone = flight.suspect and len(flights) == 1
            self._failed(flight, counts=suspicious and alone, suspicious=suspicious)

    def heard(self) -> None:
        """The controller is there, after all: what it has not answered goes again, soon."""
        now = self._steady()
        old = [flight for flight in self._flights if now - flight.sent_at > _ALONE_S]
        if not (self._online and (old or self._silences)):
            return
        self._flights = [flight for flight in self._flights if flight not in old]
        for flight in old:
            self._failed(flight, counts=False, suspicious=flight.suspect)
        self._silences, self._window = 0, 1
        self._not_before = now

    def acked(self, payload: Ack | bytes) -> int:
        """The controller has something; returns how many records went from the spool.

        Raises:
            MalformedPayloadError: It is no acknowledgement.
            PayloadTooLargeError: It is too large to be one.
        """
        ack = payload if isinstance(payload, Ack) else decode(payload, Ack)
        gone = self.spool.acked(ack)
        flights = [_without(flight, ack) for flight in self._flights]
        left = [flight for flight in flights if flight.missing]
        if len(left) < len(flights):
            self._answered += 1
            self._answered_here += 1
            self._window = min(self._window + 1, self._most)
            self._silences = 0
            self._not_before = self._steady()
        self._flights = left
        return gone

    def due(self) -> list[Batch]:
        """What is to be published now, each on the topic of its class."""
        self._expire()
        found: list[Batch] = []
        while self._free() and (batch := self._next()):
            found.append(batch)
        return found

    def wait_s(self) -> float:
        """For how long `due` has nothing new, if no record and no acknowledgement comes."""
        if not self._online:
            return _LONGEST_S
        now = self._steady()
        waiting = self.spool.counts().waiting
        times = [flight.until for flight in self._flights]
        times += [
            self._sent_at[name] + _LINGER_S[name]
            for name in CLASSES
            if waiting[name] and self._free()
        ]
        if self._not_before > now:
            times.append(self._not_before)
        return max(0.05, min([*times, now + _LONGEST_S]) - now)

    # -- inside

    def _free(self) -> bool:
        most = 1 if self._silences else self._window
        return self._online and len(self._flights) < most and self._steady() >= self._not_before

    def _next(self) -> Batch | None:
        if self._suspects and self._answered >= self._suspects_at:
            return None if self._flights else self._next_suspect()
        if any(f.suspect and self._steady() < f.until - self._shared_s for f in self._flights):
            return None
        while self._again:
            again = self._again.pop(0)
            if batch := self._resend(again, self._again):
                return self._send(batch, again.tries, self._answered)
        return self._next_new() or self._idle()

    def _next_new(self) -> Batch | None:
        for name in CLASSES:
            if self._lingers(name):
                continue
            batch = self.spool.next(name, self._after[name])
            if batch:
                self._after[name] = batch.last
                self._sent_at[name] = self._steady() if len(batch.seqs) < _FULL else float("-inf")
                return self._send(batch, 0, self._answered)
        return None

    def _next_suspect(self) -> Batch | None:
        """One that goes alone; the next one once others were answered."""
        self._suspects_at = self._answered + 1
        while self._suspects:
            again = self._suspects.pop(0)
            if batch := self._resend(again, self._suspects):
                self._shared_s = max(0.0, self._patience() - _ALONE_S)
                return self._send(batch, again.tries, again.mark, suspect=True)
        return None

    def _idle(self) -> Batch | None:
        """With nothing in flight and nothing new: what may wait, and the spool from its start."""
        if self._flights:
            return None
        # Records that were saved from a damaged file have their places before.
        self._after = dict.fromkeys(CLASSES, 0)
        return self._next_suspect()

    def _lingers(self, name: Class) -> bool:
        return self._steady() < self._sent_at[name] + _LINGER_S[name]

    def _resend(self, again: Again, rest: list[Again]) -> Batch | None:
        batch = self.spool.next(again.name, again.first - 1, last=again.last)
        if batch and batch.last < again.last:
            rest.insert(0, again._replace(first=batch.last + 1))
        return batch

    def _send(self, batch: Batch, tries: int, mark: int, *, suspect: bool = False) -> Batch:
        now = self._steady()
        missing = frozenset(batch.seqs)
        until = now + self._patience()
        self._flights.append(Flight(batch, until, tries, mark, suspect, missing, now))
        return batch

    def _patience(self) -> float:
        return min(self._timeout_s * 2.0**self._silences, _LONGEST_S)

    def _expire(self) -> None:
        now = self._steady()
        lost = [flight for flight in self._flights if flight.until <= now]
        if not lost:
            return
        self._flights = [flight for flight in self._flights if flight.until > now]
        silent = True
        for flight in lost:
            others = self._answered > flight.mark
            silent = silent and not others
            self._failed(flight, counts=others, suspicious=flight.suspect)
        if silent:
            self._silences = min(self._silences + 1, _MOST_SILENCES)
            self._not_before = now + self._jitter() * self._patience()

    def _failed(self, flight: Flight, *, counts: bool, suspicious: bool) -> None:
        """Sends it again; in halves, or not any more, where it failed and others did not."""
        batch = flight.batch
        again = Again(batch.name, batch.first, batch.last, flight.tries + counts, self._answered)
        if counts and len(batch.seqs) > 1:
            middle = (batch.first + batch.last) // 2
            self._suspects.append(again._replace(last=middle, tries=0))
            self._suspects.append(again._replace(first=middle + 1, tries=0))
        elif again.tries >= MOST_TRIES:
            self.spool.quarantine(batch)
        elif counts or suspicious:
            self._suspects.append(again)
        else:
            self._again.append(again)


def _without(flight: Flight, ack: Ack) -> Flight:
    if ack.epoch != flight.batch.epoch:
        return flight
    missing = frozenset(
        seq for seq in flight.missing if not any(low <= seq <= high for low, high in ack.ranges)
    )
    return flight._replace(missing=missing)
