"""The fleet in the workspace's database, for people: devices, deployments, rollouts, commands.

What changes here is taken up by the controller that leads, within about a second; none has to run.
Each change is one transaction, in which what it depends on is read anew.
"""

from __future__ import annotations

import getpass
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec

from edge.controller import checking, conditions, rows, tables, targeting, waves
from edge.controller.entities import (
    OPEN,
    CommandRecord,
    Deployment,
    Device,
    Event,
    Member,
    Plan,
    Revision,
    Rollout,
)
from edge.controller.rollouts import Course
from edge.controller.targeting import Candidate
from edge.protocol.messages import Module, Window
from edge.protocol.names import check_name
from edge.workspace import Connection, Database
from scoring.errors import AlreadyExistsError, InUseError, NotFoundError, UsageError

CHANGES: Final = "changes"
"""The counter of what people have changed."""

_MOST_TAG: Final = 256
_COMMAND_S: Final = 60.0
_MOST_COMMAND_S: Final = 23 * 3600.0  # devices take none that is further off than a day
_MOST_KEY: Final = 256


class Deploying(NamedTuple):
    """A revision that is made, or would be.

    Attributes:
        revision: What devices are to run.
        rollout: How it goes to them.
        members: The devices in their waves.
    """

    revision: Revision
    rollout: Rollout
    members: list[Member]


class Fleet:
    """The records of a fleet; any number of processes may use them at once.

    Args:
        database: Of a workspace.
        clock: Seconds since the epoch.

    Raises:
        WorkspaceError: The tables are of a newer release, or cannot be made.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self.clock = clock
        tables.prepare(database)

    @contextmanager
    def _change(self, *, dry_run: bool = False) -> Iterator[Connection]:
        """A transaction after which the controller looks anew; one that only reads in a dry run."""
        if dry_run:
            with self.database.read() as connection:
                yield connection
            return
        with self.database.write() as connection:
            yield connection
            rows.count_up(connection, CHANGES)

    # -- devices

    def add_device(
        self,
        name: str,
        site: str = "default",
        tags: Mapping[str, str] | None = None,
        *,
        dry_run: bool = False,
    ) -> Device:
        """Makes a device known: from others nothing is taken.

        Args:
            name: Unique in the fleet.
            site: Where it is.
            tags: What conditions may ask for.
            dry_run: Only say what it would be.

        Raises:
            InvalidNameError: A name does not fill exactly one level of a topic.
            AlreadyExistsError: There is a device of that name.
            UsageError: A tag is none.
        """
        device = Device(
            name=check_name(name, "device"),
            site=check_name(site, "site"),
            tags=_checked(tags or {}),
            created_at=self.clock(),
        )
        with self._change(dry_run=dry_run) as connection:
            if rows.read_devices(connection, name):
                raise AlreadyExistsError(
                    f"The fleet has a device {name} already.",
                    hint="Names are unique in a fleet, whatever the site.",
                )
            if not dry_run:
                rows.write_devices(connection, [device])
        return device

    def add_devices(
        self, names: Iterable[str], site: str = "default", tags: Mapping[str, str] | None = None
    ) -> list[Device]:
        """Makes many devices known at once; those that are known stay as they are.

        Args:
            names: Unique in the fleet.
            site: Of those that are new.
            tags: Likewise.

        Returns:
            All of them, new and known, in their order.

        Raises:
            InvalidNameError: A name does not fill exactly one level of a topic.
            UsageError: A tag is none.
        """
        wanted = [check_name(name, "device") for name in names]
        check_name(site, "site")
        now, kept = self.clock(), _checked(tags or {})
        with self._change() as connection:
            known = {device.name: device for device in rows.read_devices(connection)}
            new = [
                Device(name=name, site=site, tags=kept, created_at=now)
                for name in dict.fromkeys(wanted)
                if name not in known
            ]
            rows.write_devices(connection, new)
        known |= {device.name: device for device in new}
        return [known[name] for name in wanted]

    def device(self, name: str) -> Device:
        """A device; raises NotFoundError."""
        with self.database.read() as connection:
            return _device(connection, name)

    def devices(self, condition: str = "*") -> list[Device]:
        """The devices that meet a condition, by name; raises UsageError for a wrong one."""
        wanted = conditions.parse(condition)
        with self.database.read() as connection:
            found = rows.read_devices(connection)
        return [device for device in found if wanted.matches(device.subject)]

    def tag_device(
        self,
        name: str,
        tags: Mapping[str, str],
        remove: Iterable[str] = (),
        *,
        dry_run: bool = False,
    ) -> Device:
        """Gives a device tags, or takes them; raises NotFoundError, UsageError."""
        with self._change(dry_run=dry_run) as connection:
            device = _device(connection, name)
            gone = frozenset(remove)
            kept = {key: value for key, value in device.tags.items() if key not in gone}
            device.tags = _checked(kept | dict(tags))
            if not dry_run:
                rows.write_devices(connection, [device])
        return device

    def remove_device(self, name: str) -> Device:
        """Forgets a device: nothing is taken from it any more. Raises NotFoundError."""
        with self._change() as connection:
            device = _device(connection, name)
            for table in ("fleet_assignments", "fleet_commands"):
                connection.execute(f"DELETE FROM {table} WHERE device = :name", name=name)  # noqa: S608
            connection.execute("DELETE FROM fleet_devices WHERE name = :name", name=name)
        return device

    def enrolled(self, name: str, site: str) -> Device:
        """A device was let in, perhaps on other hardware: it is known, and counts from 0 again."""
        with self._change() as connection:
            found = rows.read_devices(connection, check_name(name, "device"))
            made = Device(name=name, site=check_name(site, "site"), created_at=self.clock())
            device = found[0] if found else made
            device.site = site
            device.boot = device.session = device.seq = 0
            rows.write_devices(connection, [device])
        return device

    # -- deployments

    def plan_deployment(
        self,
        name: str,
        modules: Mapping[str, Module],
        *,
        condition: str,
        priority: int = 0,
        layer: bool = False,
        window: Window | None = None,
        rate: int = 0,
        plan: Plan | None = None,
    ) -> Deploying:
        """What `deploy` would do, after the same checks; raises like it."""
        with self.database.read() as connection:
            return self._plan(
                connection,
                Revision(
                    deployment=check_name(name, "deployment"),
                    number=0,
                    condition=condition,
                    modules=dict(modules),
                    priority=priority,
                    layer=layer,
                    window=window,
                    rate=rate,
                ),
                plan or Plan(),
            )

    def deploy(
        self,
        name: str,
        modules: Mapping[str, Module],
        *,
        condition: str,
        priority: int = 0,
        layer: bool = False,
        window: Window | None = None,
        rate: int = 0,
        plan: Plan | None = None,
    ) -> Deploying:
        """Begins the rollout of a new revision of a deployment, which is made where it is new.

        Devices that come to match later get the newest revision whose rollout is complete.

        Args:
            name: Of the deployment.
            modules: Name to what is to run.
            condition: Which devices; see `conditions`.
            priority: Of several deployments for a device the highest wins, then the newest.
            layer: Adds its modules to those of another deployment.
            window: When devices may switch, in their own time.
            rate: Bytes a second for fetching; 0 for all.
            plan: How the rollout goes.

        Raises:
            InvalidNameError: A name is none.
            UsageError: The condition or the plan is none, or there are no modules.
        """
        with self._change() as connection:
            made = self._plan(
                connection,
                Revision(
                    deployment=check_name(name, "deployment"),
                    number=0,
                    condition=condition,
                    modules=dict(modules),
                    priority=priority,
                    layer=layer,
                    window=window,
                    rate=rate,
                ),
                plan or Plan(),
            )
            self._write(connection, made)
        return made

    def _plan(self, connection: Connection, revision: Revision, plan: Plan) -> Deploying:
        checking.check(revision)
        soaks = (module.soak.seconds for module in revision.modules.values())
        waves.check(plan, longest_soak_s=max(soaks))
        image = Image.read(connection)
        known = image.deployments.get(revision.deployment)
        now = self.clock()
        revision = msgspec.structs.replace(
            revision,
            number=(known.newest if known else 0) + 1,
            created_at=now,
            created_by=_user(),
        )
        rollout = Rollout(
            deployment=revision.deployment,
            revision=revision.number,
            plan=plan,
            created_at=now,
            changed_at=now,
        )
        targets = image.targets(revision)
        if any(module.port for module in revision.modules.values()):
            for device in targets:
                modules = image.choose_with(device, revision).modules
                checking.require_ports(modules, f"On {device.name} the")
        course = Course(rollout, waves.members(revision.id, plan, targets))
        return Deploying(revision, rollout, course.members)

    def _write(self, connection: Connection, made: Deploying) -> None:
        name, now = made.revision.deployment, self.clock()
        known = {one.name: one for one in rows.read_deployments(connection)}.get(name)
        if known is None:
            known = Deployment(
                name=name, made=rows.count_up(connection, "deployments"), created_at=now
            )
        known.newest = made.revision.number
        for older in rows.read_rollouts(connection, name):
            course = Course(older, ())
            course.supersede(now, made.rollout.id)
            if course.moved:
                older.waves = max(older.wave + 1, older.waves)
                rows.write_rollouts(connection, [older])
        rows.write_deployments(connection, [known])
        rows.write_revision(connection, made.revision)
        rows.write_rollouts(connection, [made.rollout])
        rows.write_members(connection, made.rollout, made.members)
        rows.write_event(connection, now, "rollout", made.rollout.id, "The rollout was begun.")

    def deployments(self) -> list[tuple[Deployment, Revision]]:
        """All deployments by name, each with its newest revision."""
        with self.database.read() as connection:
            found = {one.name: one for one in rows.read_deployments(connection)}
            revisions = rows.read_revisions(connection)
        return [
            (found[one.deployment], one)
            for one in revisions
            if one.number == found[one.deployment].newest
        ]

    def revision(self, name: str, number: int = 0) -> Revision:
        """A revision of a deployment, the newest by default; raises NotFoundError."""
        with self.database.read() as connection:
            found = rows.read_revisions(connection, name)
        wanted = [one for one in found if number in {0, one.number}]
        if not wanted:
            raise _no_deployment(name, number)
        return wanted[-1]

    def packages(self) -> set[str]:
        """The digests of all packages that some revision has."""
        with self.database.read() as connection:
            found = rows.read_revisions(connection)
        return {module.package for one in found for module in one.modules.values()}

    def remove_deployment(self, name: str, *, dry_run: bool = False) -> None:
        """Takes a deployment from all devices at once: they run what else applies to them.

        Args:
            name: Which one.
            dry_run: Only look whether that may be done.

        Raises:
            NotFoundError: There is none.
            InUseError: A rollout of it has not ended.
        """
        with self._change(dry_run=dry_run) as connection:
            _require_ended(connection, name)
            if dry_run:
                return
            for table in ("assignments", "members", "rollouts", "revisions"):
                connection.execute(f"DELETE FROM fleet_{table} WHERE deployment = :name", name=name)  # noqa: S608
            connection.execute("DELETE FROM fleet_deployments WHERE name = :name", name=name)
            rows.write_event(connection, self.clock(), "rollout", name, "It was removed.")

    # -- rollouts

    def rollouts(self) -> list[Rollout]:
        """All rollouts, the newest first."""
        with self.database.read() as connection:
            return rows.read_rollouts(connection)[::-1]

    def rollout(self, ref: str) -> Course:
        """A rollout with its members.

        Args:
            ref: `NAME:REVISION`, or `NAME` for the newest.

        Raises:
            NotFoundError: There is none.
        """
        with self.database.read() as connection:
            return _course(connection, ref)

    def pause(self, ref: str, *, dry_run: bool = False) -> Rollout:
        """Tells no further device; raises NotFoundError, UsageError."""
        return self._steer(ref, "paused", lambda course: course.pause(self.clock()), dry_run)

    def resume(self, ref: str, *, dry_run: bool = False) -> Rollout:
        """Goes on, over what failed until now; raises NotFoundError, UsageError."""
        return self._steer(ref, "resumed", lambda course: course.resume(self.clock()), dry_run)

    def retry(self, ref: str, devices: Iterable[str] = (), *, dry_run: bool = False) -> list[str]:
        """Tells devices that failed (all of them by default) again; raises like `resume`."""
        again: list[str] = []

        def retry(course: Course) -> None:
            again.extend(course.retry(self.clock(), devices))

        with self.database.read() as connection:
            course = _course(connection, ref)
            _require_current(connection, course.rollout)
            if not course.retry(self.clock(), devices):
                return []  # nothing happens, and nothing is said to have happened
        self._steer(ref, "retried", retry, dry_run)
        return again

    def abort(self, ref: str, *, revert: bool = False, dry_run: bool = False) -> list[str]:
        """Ends a rollout; returns the devices that go back to what they had.

        Args:
            ref: Which.
            revert: Also those go back that run it well. Where the older package is older by its
                release counter, too, it has to be permitted anew for that.
            dry_run: Only say which.

        Raises:
            NotFoundError: There is none.
            UsageError: It has ended.
        """
        back: list[str] = []

        def abort(course: Course) -> None:
            back.extend(course.abort(self.clock(), revert=revert))

        self._steer(ref, "aborted", abort, dry_run)
        return back

    def _steer(
        self, ref: str, word: str, act: Callable[[Course], object], dry_run: bool
    ) -> Rollout:
        """The rollout after what was done; as it is where it only might be done, and may."""
        with self._change(dry_run=dry_run) as connection:
            course = _course(connection, ref)
            before = msgspec.structs.replace(course.rollout)
            act(course)
            if dry_run:
                return before
            rollout = course.rollout
            rows.write_rollouts(connection, [rollout])
            rows.write_members(connection, rollout, course.changed.values())
            for member in course.changed.values():
                if member.state == "withdrawn":
                    _take_back(connection, rollout, member)
            text = f"The rollout was {word} by {_user()}."
            rows.write_event(connection, self.clock(), "rollout", rollout.id, text)
        return rollout

    # -- commands

    def request(
        self,
        device: str,
        verb: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = _COMMAND_S,
        key: str = "",
    ) -> CommandRecord:
        """Asks a device to do something; the controller sends it.

        Args:
            device: Which.
            verb: `restart`, `logs`, `report` …
            arguments: Of the verb.
            timeout_s: After that it is not begun any more.
            key: Of an earlier request that may have been done: it is done once.

        Raises:
            NotFoundError: There is no such device.
            UsageError: The time or the key is too long.
        """
        now = self.clock()
        if timeout_s > _MOST_COMMAND_S or len(key) > _MOST_KEY:
            raise UsageError(
                f"A command begins within {_MOST_COMMAND_S / 3600:g} hours, and its key has up to "
                f"{_MOST_KEY} characters."
            )
        made = CommandRecord(
            id=secrets.token_hex(8),
            device=device,
            verb=verb,
            arguments=dict(arguments or {}),
            deadline=now + timeout_s,
            key=key or secrets.token_hex(16),
            created_at=now,
        )
        with self._change() as connection:
            _device(connection, device)
            rows.write_commands(connection, [made])
            connection.execute(
                "DELETE FROM fleet_commands WHERE created_at < :before", before=now - _KEPT_S
            )
        return made

    def command(self, id: str) -> CommandRecord:  # noqa: A002 - what it is called everywhere
        """A command as it is now; raises NotFoundError."""
        with self.database.read() as connection:
            found = rows.read_commands(connection, id=id)
        if not found:
            raise NotFoundError(f"There is no command {id[:64]!a}.")
        return found[0]

    # -- what happened

    def events(self, *, after: int = 0, most: int = 1000) -> list[Event]:
        """What happened, the oldest first."""
        with self.database.read() as connection:
            return rows.read_events(connection, after=after, most=most)

    def changes(self) -> int:
        """A number that grows with everything that people change."""
        with self.database.read() as connection:
            return rows.number(connection, CHANGES)


_KEPT_S: Final = 30 * 86400.0


class Image:
    """All that decides what devices run, as it was at one moment.

    Attributes:
        devices: By name.
        deployments: By name.
        revisions: By deployment and number.
        assignments: By deployment and device: the revision, where it is not the stable one.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        deployments: Iterable[Deployment],
        revisions: Iterable[Revision],
        assignments: dict[tuple[str, str], int],
    ) -> None:
        self.devices = {device.name: device for device in devices}
        self.deployments = {one.name: one for one in deployments}
        self.revisions = {(one.deployment, one.number): one for one in revisions}
        self.assignments = assignments

    @classmethod
    def read(cls, connection: Connection) -> Image:
        """The fleet as the transaction sees it."""
        return cls(
            rows.read_devices(connection),
            rows.read_deployments(connection),
            rows.read_revisions(connection),
            rows.read_assignments(connection),
        )

    def candidates(self, device: str) -> Iterator[Candidate]:
        """What a device would run, of each deployment, if it meets the condition."""
        for one in self.deployments.values():
            number = self.assignments.get((one.name, device), one.stable)
            revision = self.revisions.get((one.name, number))
            if revision is not None:
                yield Candidate(revision, one.made)

    def choose(self, device: Device) -> targeting.Choice:
        """What a device is to run."""
        return targeting.choose(device.subject, self.candidates(device.name))

    def targets(self, revision: Revision) -> list[Device]:
        """The devices that would run a revision, of which nothing of higher rank keeps them."""
        return [device for device in self.devices.values() if self.gets(device, revision)]

    def gets(self, device: Device, revision: Revision) -> bool:
        """Whether a device would run something of a revision."""
        if not conditions.parse(revision.condition).matches(device.subject):
            return False
        return revision.deployment in self.choose_with(device, revision).owners.values()

    def choose_with(self, device: Device, revision: Revision) -> targeting.Choice:
        """What a device would run if it were told a revision."""
        name = revision.deployment
        known = self.deployments.get(name)
        newest = max((one.made for one in self.deployments.values()), default=0) + 1
        mine = Candidate(revision, known.made if known else newest)
        others = [one for one in self.candidates(device.name) if one.revision.deployment != name]
        return targeting.choose(device.subject, [*others, mine])


def _device(connection: Connection, name: str) -> Device:
    found = rows.read_devices(connection, name) if name else []
    if not found:
        raise NotFoundError(
            f"The fleet has no device {name[:64]!a}.", hint="See 'fieldpost device list'."
        )
    return found[0]


def _course(connection: Connection, ref: str) -> Course:
    name, _, number = ref.partition(":")
    found = [
        one for one in rows.read_rollouts(connection, name) if number in {"", str(one.revision)}
    ]
    if not name or not found:
        raise NotFoundError(
            f"There is no rollout {ref[:80]!a}.", hint="See 'fieldpost rollout list'."
        )
    newest = max(found, key=lambda one: one.revision)
    return Course(newest, rows.read_members(connection, newest))


def _require_ended(connection: Connection, name: str) -> None:
    """Raises NotFoundError, or InUseError where a rollout of a deployment may still go on."""
    if not any(one.name == name for one in rows.read_deployments(connection)):
        raise _no_deployment(name)
    for rollout in rows.read_rollouts(connection, name):
        if rollout.state in OPEN:
            raise InUseError(
                f"The rollout {rollout.id} is {rollout.state}.",
                hint=f"'fieldpost rollout abort {rollout.id}' first.",
            )


def _require_current(connection: Connection, rollout: Rollout) -> None:
    """A device that tries an earlier revision again would leave the one that is for all."""
    found = {one.name: one.stable for one in rows.read_deployments(connection)}
    stable = found[rollout.deployment]
    if rollout.revision < stable:
        raise UsageError(
            f"The rollout {rollout.id} cannot be retried: revision {stable} is for all by now.",
            hint=f"'fieldpost rollout retry {rollout.deployment}:{stable}' retries that.",
        )


def _take_back(connection: Connection, rollout: Rollout, member: Member) -> None:
    """A device is told again what it was told before."""
    of = {"deployment": rollout.deployment, "device": member.device, "revision": rollout.revision}
    which = "WHERE deployment = :deployment AND device = :device AND revision = :revision"
    if member.earlier:
        statement = f"UPDATE fleet_assignments SET revision = :earlier {which}"  # noqa: S608 - ours
        connection.execute(statement, earlier=member.earlier, **of)
    else:
        connection.execute(f"DELETE FROM fleet_assignments {which}", **of)  # noqa: S608 - ours


def _no_deployment(name: str, number: int = 0) -> NotFoundError:
    which = f"{name[:64]}:{number}" if number else name[:64]
    return NotFoundError(
        f"The fleet has no deployment {which!a}.", hint="See 'fieldpost fleet list'."
    )


def _checked(tags: Mapping[str, str]) -> dict[str, str]:
    for key, value in tags.items():
        if not key or len(key) > _MOST_TAG or len(value) > _MOST_TAG or "\0" in key + value:
            raise UsageError(
                f"{key[:40]!a} is no tag.",
                hint=f"A tag's name and value have up to {_MOST_TAG} characters.",
                where="tags",
            )
    return dict(tags)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
