"""What the leading controller decides: messages and time in, desired states and changes out.

No I/O: `controller` reads and writes for it. Everything is made anew from the records after a
restart, or when people changed something, so that nothing here has to be kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import msgspec

from edge.controller.commanding import Commanding
from edge.controller.criteria import Answered
from edge.controller.entities import Device, Member
from edge.controller.ledger import Changes, Happened, Picture
from edge.controller.rollouts import Course, Outcome, outcome
from edge.controller.targeting import Choice
from edge.protocol import envelope as envelopes
from edge.protocol import messages
from edge.protocol.messages import Command, Desired, Module, Reported, Source, Status
from edge.protocol.topics import Kind, Topic, topic
from scoring import digest as digests
from scoring.errors import FieldpostError

logger = logging.getLogger(__name__)

JUDGE_S: Final = 3.0
"""How often waves are judged by what their devices tell."""

GAP_S: Final = 10.0
"""Nobody watched for so long: that is not held against devices."""


class Signer(Protocol):
    """Signs what devices are to do."""

    def sign(self, message: Desired | Command) -> bytes:
        """The envelope of a message; raises PayloadTooLargeError."""
        ...


class Permits(Protocol):
    """What offline-signed metadata permits."""

    def release(self, package: str) -> int:
        """The release counter of a package; raises VerificationError where it is not permitted."""
        ...

    def versions(self) -> dict[str, int]:
        """Role to version of the metadata."""
        ...

    def look_again(self) -> None:
        """Has the next question answered by what is signed then."""
        ...


Asked = tuple[str, str, str, float]
"""Device, module, package, and since when in seconds since the epoch."""

Answers = Callable[[Iterable[Asked]], Answered]
"""What was answered, taken together: `Live.sum` of `edge.telemetry`."""


class Outgoing(NamedTuple):
    """A message to publish.

    Attributes:
        to: Its topic.
        payload: Its bytes.
    """

    to: Topic
    payload: bytes


class Leader:
    """Decides for one fleet.

    Args:
        picture: The fleet as the records have it.
        signer: Signs desired states and commands.
        permits: Says which packages may run.
        sources: Where devices fetch from, the best first.
        answers: What devices tell of requests; None where nobody listens: then no wave is judged by
            it.
        now: Seconds since the epoch.

    Attributes:
        outgoing: To be published once the changes are written.
        refresh: Topics whose retained message is to be asked for anew.
    """

    def __init__(
        self,
        picture: Picture,
        *,
        signer: Signer,
        permits: Permits,
        sources: Iterable[Source] = (),
        answers: Answers | None = None,
        now: float,
    ) -> None:
        self._signer = signer
        self._permits = permits
        self._sources = tuple(sources)
        self._answers = answers
        self._judged_at = 0.0
        self._signed = 0
        self._warned: set[tuple[str, str]] = set()
        self._strangers: dict[tuple[str, str], float] = {}
        self._reset_told: dict[str, float] = {}
        self.commanding = Commanding(signer)
        self.outgoing: list[Outgoing]
        self.refresh: list[Topic] = []
        self._take(picture)
        self._watched_at = picture.watched_at or now
        self._signed = self._signed_targets()
        self._resolve_all(now)

    def _take(self, picture: Picture) -> None:
        self._picture = picture
        self._image = picture.image
        self._courses = picture.courses
        self._online = {one.name: one.online for one in self._image.devices.values()}
        self._choices: dict[str, Choice] = {}
        self._dirty: set[str] = set()
        self._stable: set[str] = set()
        self._told: list[tuple[str, str, int]] = []
        self._events: list[Happened] = []
        self.outgoing = []  # what was not written is not said
        self._asked: dict[tuple[str, str], tuple[float, float]] = {}
        self.commanding.take(picture.commands)

    def reload(self, picture: Picture, now: float) -> None:
        """Begins anew from the records; what devices have said meanwhile is kept."""
        self._permits.look_again()  # who deploys may have signed just before
        heard = [self._image.devices[name] for name in self._dirty]
        known = self._image.devices.keys()
        self._take(picture)
        for name in self._image.devices.keys() - known:  # what they said before was dropped
            site = self._image.devices[name].site
            self.refresh += [topic(site, name, "status"), topic(site, name, "reported")]
        for old in heard:
            device = self._image.devices.get(old.name)
            if device is not None and (old.boot, old.session, old.seq) >= (
                device.boot,
                device.session,
                device.seq,
            ):
                for field in _HEARD:
                    setattr(device, field, getattr(old, field))
                self._dirty.add(device.name)
                self._online[device.name] = device.online
        self._resolve_all(now)

    # -- what devices say

    def status(self, where: Topic, status: Status, now: float, *, retained: bool) -> None:
        """A device is there, or is not."""
        device = self._known(where, status.device, now)
        if device is None:
            return
        came = (status.boot, status.session)
        if self._is_other(device, status, retained=retained):
            if retained or not status.online:
                return  # the will of an earlier connection, or a message that was kept
            self._reset(device, status, now)
        if status.boot != device.boot:
            device.seq = 0
        device.boot, device.session = came
        was, device.online = device.online, status.online
        self._online[device.name] = status.online
        self._hear(device, now, retained=retained and not status.online)
        if status.online and device.observed < device.generation:
            self._publish(device)
        if status.online and not was:
            self._send_commands(device, now)

    @staticmethod
    def _is_other(device: Device, status: Status, *, retained: bool) -> bool:
        """Whether a status is of an earlier connection, or of another machine.

        The copy of a disk counts on from the same numbers: no connection comes back after its end.
        """
        came, last = (status.boot, status.session), (device.boot, device.session)
        again = came == last and status.online and not device.online and not retained
        return came < last or (again and last != (0, 0))

    def _reset(self, device: Device, status: Status, now: float) -> None:
        """Its boot counter went back: it was set up anew, or two machines have its name."""
        device.resets += 1
        device.seq = 0
        if now - self._reset_told.get(device.name, float("-inf")) < _RESET_EVERY_S:
            return  # two that push each other off the broker do so every few seconds
        self._reset_told[device.name] = now
        text = (
            f"Its boot counter went from {device.boot} back to {status.boot}"
            if status.boot < device.boot
            else f"It connects as one that was there before, in boot {status.boot}"
        )
        text += ": it was set up anew, or two machines have its identity."
        self._happened(now, "security", device.name, text)

    def reported(self, where: Topic, report: Reported, now: float, *, retained: bool) -> None:
        """A device says what it runs."""
        device = self._known(where, report.device, now)
        if device is None or (report.boot, report.seq) <= (device.boot, device.seq):
            return
        if report.boot > device.boot:
            device.session = 0
        device.boot, device.seq = report.boot, report.seq
        has_forgotten = report.generation < device.observed
        device.observed, device.refused = report.generation, report.refused
        device.modules = report.modules
        changed = device.facts != report.facts
        device.facts = report.facts
        self._hear(device, now, retained=retained)
        if report.generation > device.generation:
            self._resolve(device, now, force=True)  # the records are older than the device
            return
        if has_forgotten:
            self._publish(device)
        if changed:
            self._resolve(device, now)
        else:
            self._judge(device, now)

    def _hear(self, device: Device, now: float, *, retained: bool) -> None:
        self._dirty.add(device.name)
        if retained:
            return
        device.seen_at = now
        for course in self._courses.values():
            course.seen(device.name, now)

    def _known(self, where: Topic, name: str, now: float) -> Device | None:
        """The device that speaks, if it may speak there: brokers check the name, not the site."""
        device = self._image.devices.get(where.device)
        if device is not None and (device.name, device.site) == (name, where.site):
            return device
        if device is None:
            if len(self._strangers) < _MOST_WARNINGS:
                self._strangers.setdefault((where.device, where.site), now)
        else:
            self._warn(where, f"at {device.site}, and calls itself {name!a}", now)
        return None

    def _warn(self, where: Topic, why: str, now: float) -> None:
        if (where.device, where.site) not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add((where.device, where.site))
            text = f"A message at {where.site}/{where.device} was dropped: the device is {why}."
            self._happened(now, "security", where.device, text[:400])

    def _tell_strangers(self, now: float) -> None:
        """Warns of those that are not known, unless they had just joined when they spoke."""
        for (name, site), since in list(self._strangers.items()):
            if now - since > _JOINING_S:
                del self._strangers[name, site]
                if name not in self._image.devices:
                    self._warn(topic(site, name, "reported"), "not known", now)

    def is_known(self, where: Topic, now: float) -> bool:
        """Whether the device of a topic may speak there."""
        return self._known(where, where.device, now) is not None

    # -- what devices run

    def _resolve_all(self, now: float) -> None:
        for course in self._courses.values():
            for member in course.members if course.is_open else ():
                if member.device not in self._image.devices:
                    course.lose(member.device, "it was removed")
                elif member.state == "started" and not member.generation:
                    course.told[member.device] = member  # retried by a person
        self._tell(now)
        for device in list(self._image.devices.values()):
            self._resolve(device, now)

    def _resolve(self, device: Device, now: float, *, force: bool = False) -> None:
        """Gives a device a new desired state where it has to have another one."""
        choice = self._image.choose(device)
        self._choices[device.name] = choice
        content = _content(choice)
        never = not choice.modules and not device.generation
        stale = self._is_stale(device)
        if (force or stale or content != device.content) and not never:
            self._issue(device, choice, content, now)
        self._judge(device, now)

    def _is_stale(self, device: Device) -> bool:
        """Whether a device that has not taken its wish on has to be told another by now.

        It would fetch from places that are no more, or refuse a release that was signed anew since.
        """
        if not device.envelope or device.observed >= device.generation:
            return False
        body = envelopes.decode(device.envelope.encode()).body()
        told = messages.decode(body, Desired)
        return told.sources != self._sources or any(
            map(self._is_signed_anew, told.modules.values())
        )

    def _is_signed_anew(self, told: Module) -> bool:
        try:
            return self._permits.release(told.package) != told.release
        except FieldpostError:  # nothing better could be told
            return False

    def _follow_permits(self, now: float) -> None:
        """Tells devices what they may run since other targets are signed."""
        before, self._signed = self._signed, self._signed_targets()
        if self._signed != before:
            for device in list(self._image.devices.values()):
                self._resolve(device, now)

    def _signed_targets(self) -> int:
        try:
            return self._permits.versions().get("targets", 0)
        except FieldpostError:
            return self._signed

    def _issue(self, device: Device, choice: Choice, content: str, now: float) -> None:
        try:
            desired = Desired(
                site=device.site,
                device=device.name,
                generation=max(device.generation, device.observed) + 1,
                issued_at=now,
                modules={name: self._permitted(one) for name, one in choice.modules.items()},
                sources=self._sources,
                window=choice.window,
                rate=choice.rate,
                rollout=choice.applied[0].id if choice.applied else "",
                metadata=self._permits.versions(),
            )
            device.envelope = self._signer.sign(desired).decode()
        except FieldpostError as error:
            self._cannot(device, choice, error, now)
            return
        device.generation, device.content, device.refused = desired.generation, content, None
        self._dirty.add(device.name)
        self._publish(device)

    def _permitted(self, module: Module) -> Module:
        return msgspec.structs.replace(module, release=self._permits.release(module.package))

    def _cannot(self, device: Device, choice: Choice, error: FieldpostError, now: float) -> None:
        """What should run there may not: the device keeps what it has."""
        for course in self._courses.values():
            if _owned(choice, course):
                note = f"{error.code}: {error.message}"
                course.report(device.name, Outcome("failed", "not sent", note), now)
        if (device.name, error.message) not in self._warned:
            self._warned.add((device.name, error.message))
            self._happened(now, "device", device.name, f"Nothing was sent: {error.message}")

    def _publish(self, device: Device) -> None:
        if device.envelope:
            self._send(device, "desired", device.envelope.encode())

    def _send(self, device: Device, kind: Kind, payload: bytes) -> None:
        self.outgoing.append(Outgoing(topic(device.site, device.name, kind), payload))

    def retained_topics(self) -> list[Topic]:
        """What a broker keeps of all devices' words; those that seem to be away come first."""
        devices = sorted(self._image.devices.values(), key=lambda one: one.online)
        kinds: tuple[Kind, ...] = ("status", "reported")
        return [topic(one.site, one.name, kind) for one in devices for kind in kinds]

    def publish_all(self, now: float) -> None:
        """Says everything anew: the broker may have forgotten it."""
        for device in self._image.devices.values():
            self._publish(device)
            if device.online:
                self._send_commands(device, now)

    # -- rollouts

    def _judge(self, device: Device, now: float) -> None:
        """Tells each rollout what the device's newest report means for it."""
        choice = self._choices[device.name]
        for course in self._courses.values():
            member = course.member(device.name)
            if member is None or member.state in {"gone", "withdrawn"}:
                continue
            mine = _owned(choice, course)
            if member.state == "pending":
                self._keep_pending(course, device)
            elif not mine and course.rollout.deployment in choice.owners.values():
                continue  # another revision of it: what was good then is no news now
            elif not mine:
                course.lose(device.name, "another deployment applies to it now")
            else:
                if not member.generation:
                    member.generation = device.generation
                    course.changed[device.name] = member
                course.report(device.name, outcome(device, member.generation, mine), now)

    def _keep_pending(self, course: Course, device: Device) -> None:
        """A device that was deleted or tagged otherwise before its wave is not waited for."""
        rollout = course.rollout
        revision = self._image.revisions[rollout.deployment, rollout.revision]
        if course.is_open and not self._image.gets(device, revision):
            course.lose(device.name, "it does not match any more")

    def _tell(self, now: float) -> None:
        """Gives devices the revisions of the waves that have begun."""
        for course in self._courses.values():
            told, course.told = course.told, {}
            for name, member in told.items():
                self._tell_one(course, member, self._image.devices[name], now)

    def _tell_one(self, course: Course, member: Member, device: Device, now: float) -> None:
        rollout = course.rollout
        key = (rollout.deployment, device.name)
        deployment = self._image.deployments[rollout.deployment]
        if deployment.stable != rollout.revision:
            earlier = self._image.assignments.get(key, 0)
            if earlier != rollout.revision:
                member.earlier = earlier
            self._image.assignments[key] = rollout.revision
            self._told.append((*key, rollout.revision))
        before = device.generation
        self._resolve(device, now, force=self._has_failed(device, course))
        if device.generation == before and device.observed < before:
            self._publish(device)  # it may never have come

    def _has_failed(self, device: Device, course: Course) -> bool:
        """Whether only a new generation makes a device try again."""
        mine = _owned(self._image.choose(device), course)
        return outcome(device, device.generation, mine).kind == "failed"

    def tick(self, now: float) -> None:
        """Time goes on: silence, waves, completion, commands that nobody answers."""
        gap = now - self._watched_at
        if gap > GAP_S or gap < 0:
            for course in self._courses.values():
                course.skip(gap)
        self._watched_at = now
        self._follow_permits(now)
        self._judge_waves(now)
        for course in list(self._courses.values()):
            if not course.is_open:
                continue
            course.advance(now, self._online)
            self._ask_again(course, now)
            self._note(course, now)
        self._tell(now)
        self._finish(now)
        self._tell_strangers(now)
        self.commanding.expire(now)

    def _judge_waves(self, now: float) -> None:
        """By what devices tell of their requests: before anything goes on."""
        answers = self._answers
        if answers is None or 0 <= now - self._judged_at < JUDGE_S:
            return
        self._judged_at = now
        for course in self._courses.values():
            rollout = course.rollout
            revision = self._image.revisions[rollout.deployment, rollout.revision]
            packages = [(name, one.package) for name, one in revision.modules.items()]
            course.judge(
                now,
                lambda devices, packages=packages: answers(  # type: ignore[misc]
                    (device, *package, since)
                    for device, since in devices.items()
                    for package in packages
                ),
            )

    @property
    def watched_at(self) -> float:
        """Until when the fleet was watched."""
        return self._watched_at

    def _ask_again(self, course: Course, now: float) -> None:
        """A report may have been lost on its way: the broker has it."""
        timeout_s = course.rollout.plan.timeout_s
        for member in course.overdue(now, _ASK_AT[0]):
            key, waited = (course.rollout.id, member.device), now - member.progressed
            part = max(part for part in _ASK_AT if part * timeout_s < waited)
            if self._asked.get(key) != (member.progressed, part):
                self._asked[key] = (member.progressed, part)
                device = self._image.devices[member.device]
                self.refresh.append(topic(device.site, device.name, "reported"))
                self._publish(device)

    def _note(self, course: Course, now: float) -> None:
        rollout = course.rollout
        if course.moved:
            which = f"wave {rollout.wave + 1} of {rollout.waves}"
            state = which if rollout.state == "running" else rollout.state
            self._happened(now, "rollout", rollout.id, f"{state}. {rollout.note}".strip())

    def _finish(self, now: float) -> None:
        """A rollout that is complete makes its revision the one for all."""
        for course in self._courses.values():
            rollout = course.rollout
            deployment = self._image.deployments[rollout.deployment]
            if rollout.state != "complete" or deployment.stable >= rollout.revision:
                continue
            deployment.stable = rollout.revision
            self._stable.add(deployment.name)
            for key, revision in list(self._image.assignments.items()):
                if key[0] == deployment.name and revision <= deployment.stable:
                    del self._image.assignments[key]
            for device in list(self._image.devices.values()):
                self._resolve(device, now)

    def _happened(self, now: float, kind: str, subject: str, text: str) -> None:
        logger.info("%s subject=%s text=%s", kind, subject, text)
        self._events.append(Happened(now, kind, subject, text))

    # -- commands

    def _send_commands(self, device: Device, now: float) -> None:
        for payload in self.commanding.due(device, now):
            self._send(device, "cmd/req", payload)

    def send_waiting(self, now: float) -> None:
        """Sends commands that were not sent yet, to devices that are there."""
        for name in self.commanding.waiting():
            device = self._image.devices.get(name)
            if device is not None and device.online:
                self._send_commands(device, now)

    def result(self, where: Topic, result: messages.CommandResult, now: float) -> None:
        """A device answers a command."""
        if self._known(where, result.device, now) is not None:
            self.commanding.answer(result)

    # -- what is to be written

    def changes(self) -> Changes | None:
        """What has changed since `written`; None for nothing."""
        courses = [one for one in self._courses.values() if one.changed or one.moved]
        found = Changes(
            [self._image.devices[name] for name in self._dirty],
            courses,
            [self._image.deployments[name] for name in self._stable],
            list(self._told),
            self.commanding.changed(),
            list(self._events),
        )
        return found if any(found) else None

    def written(self) -> None:
        """All that `changes` said is in the records."""
        self._dirty.clear()
        self._stable.clear()
        self._told.clear()
        self._events.clear()
        self.commanding.written()
        for course in self._courses.values():
            course.changed.clear()
            course.moved = False

    @property
    def seen(self) -> int:
        """The counter of what people changed, on which everything here is based."""
        return self._picture.changes


_HEARD: Final = (
    "facts",
    "online",
    "boot",
    "session",
    "seq",
    "observed",
    "seen_at",
    "modules",
    "refused",
    "resets",
)
_MOST_WARNINGS: Final = 10_000
_JOINING_S: Final = 5.0
_ASK_AT: Final = (0.1, 0.25, 0.5, 0.7, 0.85, 0.95)
"""Of the timeout of a device that shows nothing: then the broker is asked what it last said."""

_RESET_EVERY_S: Final = 600.0


def _owned(choice: Choice, course: Course) -> Mapping[str, Module]:
    """The modules that a device runs for a rollout's revision."""
    rollout = course.rollout
    if rollout.id not in {one.id for one in choice.applied}:
        return {}
    return {
        name: module
        for name, module in choice.modules.items()
        if choice.owners[name] == rollout.deployment
    }


def _content(choice: Choice) -> str:
    """What a desired state says, apart from when and where from: the same needs no new one."""
    modules = {
        name: msgspec.structs.replace(module, release=0)
        for name, module in sorted(choice.modules.items())
    }
    data = msgspec.json.encode((modules, choice.window, choice.rate), order="sorted")
    return digests.of_bytes(data)
