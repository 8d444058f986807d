"""The records, for the one controller that leads: a lease, all at once in, changes out.

The lease needs no clock that machines share: its holder counts a beat up, and who sees the same
beat for long enough, by its own clock, takes over with the next term. Every write of the leader
checks its term in the same transaction: one that was asleep for a while changes nothing any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from edge.controller import rows
from edge.controller.entities import OPEN, CommandRecord, Deployment, Device, Rollout, RolloutState
from edge.controller.records import CHANGES, Image
from edge.controller.rollouts import Course
from edge.workspace import Connection, Database, Row
from scoring.errors import InUseError

_NAME: Final = "controller"
_MAY_BE_TOLD: Final[frozenset[RolloutState]] = frozenset({"complete", "superseded"})


class LeaseLostError(InUseError):
    """Another controller leads now."""


class Lease:
    """Which of several controllers leads.

    Args:
        database: Of the workspace.
        holder: Names this controller, in its present run.
        lasts_s: Who is silent for so long leads no more.
        ticks: A clock that goes forward only, in seconds.

    Attributes:
        term: Counts up with each change of leader; 0 while this one does not lead.
    """

    def __init__(
        self,
        database: Database,
        holder: str,
        *,
        lasts_s: float = 10.0,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._ticks = ticks
        self._seen: tuple[int, int] = (-1, -1)
        self._seen_at = 0.0
        self.holder = holder
        self.lasts_s = lasts_s
        self.term = 0

    def keep(self, watched_at: float = 0.0) -> bool:
        """Takes the lease, or keeps it; whether this controller leads now.

        Args:
            watched_at: Until when the fleet was watched, in seconds since the epoch; 0: not yet.
        """
        with self._database.write() as connection:
            row = _read(connection)
            if row is not None and row["holder"] == self.holder and row["term"] == self.term:
                self._write(connection, row["term"], row["beat"] + 1, watched_at)
                return True
            self.term = 0
            if row is not None and not self._is_over(row):
                return False
            term = (row["term"] if row else 0) + 1
            self._write(connection, term, 0, row["watched_at"] if row else 0.0)
        self.term = term
        return True

    def _is_over(self, row: Row) -> bool:
        now, seen = self._ticks(), (row["term"], row["beat"])
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return not row["holder"] or now - self._seen_at > self.lasts_s

    def _write(self, connection: Connection, term: int, beat: int, watched_at: float) -> None:
        connection.execute(
            "INSERT INTO fleet_lease (name, holder, term, beat, watched_at) "
            "VALUES (:name, :holder, :term, :beat, :watched_at) ON CONFLICT (name) DO UPDATE SET "
            "holder = excluded.holder, term = excluded.term, beat = excluded.beat, "
            "watched_at = excluded.watched_at",
            name=_NAME,
            holder=self.holder,
            term=term,
            beat=beat,
            watched_at=watched_at,
        )

    def require(self, connection: Connection) -> None:
        """Raises LeaseLostError where another controller leads, in a transaction that writes."""
        row = _read(connection)
        if not self.term or row is None or (row["holder"], row["term"]) != (self.holder, self.term):
            self.term = 0
            raise LeaseLostError("Another controller leads this fleet now.")

    def let_go(self) -> None:
        """Lets another one lead at once."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE fleet_lease SET holder = '' WHERE holder = :holder AND term = :term",
                holder=self.holder,
                term=self.term,
            )
        self.term = 0


def _read(connection: Connection) -> Row | None:
    found = connection.execute("SELECT * FROM fleet_lease WHERE name = :name", name=_NAME)
    return found[0] if found else None


class Picture(NamedTuple):
    """The fleet at one moment.

    Attributes:
        image: What decides what devices run.
        courses: By rollout: those that go on; of deployments that have none, those whose revision
            devices are told.
        commands: Those that nobody has answered.
        changes: The counter of what people changed, as it was.
        watched_at: Until when some controller watched; 0 for never.
    """

    image: Image
    courses: dict[str, Course]
    commands: dict[str, CommandRecord]
    changes: int
    watched_at: float


class Happened(NamedTuple):
    """Something to write down.

    Attributes:
        at: Seconds since the epoch.
        kind: See `entities.Event`.
        subject: Which one.
        text: A sentence.
    """

    at: float
    kind: str
    subject: str
    text: str


class Changes(NamedTuple):
    """What the leader has to write, all at once.

    Attributes:
        devices: Those that changed.
        courses: Rollouts of which something changed.
        deployments: Those whose stable revision changed: what was told before is forgotten.
        told: Deployment, device and revision of new assignments.
        commands: Those that changed.
        events: What happened.
    """

    devices: list[Device]
    courses: list[Course]
    deployments: list[Deployment]
    told: list[tuple[str, str, int]]
    commands: list[CommandRecord]
    events: list[Happened]


class Ledger:
    """Reads the whole fleet, and writes what the leader changed.

    Args:
        database: Of the workspace.
        lease: Of this controller.
    """

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self._lease = lease

    def changes(self) -> int:
        """The counter of what people changed, as it is now."""
        with self._database.read() as connection:
            return rows.number(connection, CHANGES)

    def require_lease(self) -> None:
        """Raises LeaseLostError where this controller does not lead any more."""
        with self._database.read() as connection:
            self._lease.require(connection)

    def load(self) -> Picture:
        """The fleet as it is now."""
        with self._database.read() as connection:
            image = Image.read(connection)
            courses = {
                rollout.id: Course(rollout, rows.read_members(connection, rollout))
                for rollout in _followed(image, rows.read_rollouts(connection))
            }
            commands = [
                command
                for state in ("waiting", "sent")
                for command in rows.read_commands(connection, state=state)
            ]
            row = _read(connection)
            return Picture(
                image,
                courses,
                {command.id: command for command in commands},
                rows.number(connection, CHANGES),
                row["watched_at"] if row else 0.0,
            )

    def write(self, changes: Changes, seen: int) -> bool:
        """Writes changes; False, and nothing written, where people changed something meanwhile.

        Args:
            changes: What the leader has decided.
            seen: The counter of what people changed, on which that was based.

        Raises:
            LeaseLostError: This controller does not lead any more; nothing was written.
            WorkspaceError: The database cannot be written; nothing was.
        """
        with self._database.write() as connection:
            self._lease.require(connection)
            if rows.number(connection, CHANGES) != seen:
                return False
            rows.write_devices(connection, changes.devices)
            rows.write_deployments(connection, changes.deployments)
            for deployment in changes.deployments:
                connection.execute(
                    "DELETE FROM fleet_assignments WHERE deployment = :name "
                    "AND revision <= :stable",
                    name=deployment.name,
                    stable=deployment.stable,
                )
            _write_told(connection, changes.told)
            rows.write_rollouts(connection, [one.rollout for one in changes.courses])
            for course in changes.courses:
                rows.write_members(connection, course.rollout, course.changed.values())
            rows.write_commands(connection, changes.commands)
            for event in changes.events:
                rows.write_event(connection, *event)
        return True


def _followed(image: Image, rollouts: Iterable[Rollout]) -> list[Rollout]:
    """The rollouts that devices may still say something about.

    A device that was away gets a revision long after its rollout has ended: also where a newer one
    was begun meanwhile, and aborted.
    """
    listed = list(rollouts)
    under_way = {one.deployment for one in listed if one.state in OPEN}
    told = {(name, number) for (name, _), number in image.assignments.items()}
    told |= {(one.name, one.stable) for one in image.deployments.values()}
    return [
        one
        for one in listed
        if one.state in OPEN
        or (
            one.state in _MAY_BE_TOLD
            and one.deployment not in under_way
            and (one.deployment, one.revision) in told
        )
    ]


def _write_told(connection: Connection, told: Iterable[tuple[str, str, int]]) -> None:
    listed = [
        {"deployment": deployment, "device": device, "revision": revision}
        for deployment, device, revision in told
    ]
    if listed:
        connection.execute_many(
            "INSERT INTO fleet_assignments (deployment, device, revision) "
            "VALUES (:deployment, :device, :revision) "
            "ON CONFLICT (deployment, device) DO UPDATE SET revision = excluded.revision",
            listed,
        )
