"""The containers of one deployment as they are: who is there, and what each says."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from serve.targets.docker import events, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from serve.engines import Engine
    from serve.targets.docker.names import Names

_EVENTS = 2000
_AT_ONCE = 8


class Member(NamedTuple):
    """A container of the deployment.

    Attributes:
        id: The engine's.
        role: `front` or `worker`.
        revision: The one that it was made for.
        slot: A worker's place.
        run: The volume that it shares with the others.
        spec: What a front is made of.
        state: `created`, `running`, `restarting`, `paused`, `exited`, `dead`, …
        image: The ID or name of its image.
    """

    id: str
    role: str
    revision: int
    slot: int
    run: str
    spec: str
    state: str
    image: str

    @property
    def source(self) -> str:
        """A worker's name in logs: `r3/w0`."""
        return names.source(self.revision, self.slot)

    @property
    def is_up(self) -> bool:
        """Whether it has a process, or is about to get one again."""
        return self.state in ("running", "restarting", "paused")


class Crew:
    """The containers of a deployment.

    Args:
        engine: Where they run.
        own: Their names and labels.
    """

    def __init__(self, engine: Engine, own: Names) -> None:
        self.engine = engine
        self.own = own

    def members(self) -> list[Member]:
        """All of them, running or not, by revision and slot."""
        found = (self._member(each) for each in self.engine.containers(self.own.labels))
        return sorted((each for each in found if each), key=lambda each: each[2:4])

    def fronts(self) -> list[Member]:
        """Those that hold a port, the oldest first."""
        return [each for each in self.members() if each.role == names.FRONT]

    def workers(self, revision: int | None = None) -> list[Member]:
        """Those that answer, of one revision or of all."""
        return [
            each
            for each in self.members()
            if each.role == names.WORKER and revision in (None, each.revision)
        ]

    def told(self, front: Member) -> dict[str, events.Told]:
        """What a front has told of its workers, by their names."""
        return events.read(self.lines(front.id, _EVENTS))

    def lines(self, container: str, tail: int) -> list[str]:
        """The end of a container's log, each line with its time."""
        text = b"".join(self.engine.logs(container, tail=tail))
        return text.decode("utf-8", "replace").splitlines()

    def output(self, container: str, tail: int) -> str:
        """The end of a container's log as it was written."""
        return "\n".join(line.partition(" ")[2] for line in self.lines(container, tail))

    def stop(self, members: Iterable[Member], grace_s: float) -> None:
        """Lets them answer what they have begun, all at once, and waits until they have ended."""
        self._each(members, lambda each: self._stop(each, grace_s))

    def remove(self, members: Iterable[Member]) -> None:
        """Removes containers, and ends by force what runs."""
        self._each(members, lambda each: self.engine.remove(each.id))

    def remove_volumes(self, keep: Iterable[str] = ()) -> None:
        """Removes the volumes that no container of the deployment needs any more."""
        kept = {*keep, *(each.run for each in self.members())}
        for name in self.engine.volumes(self.own.labels):
            if name not in kept:
                self.engine.remove_volume(name)

    def _stop(self, member: Member, grace_s: float) -> None:
        # An engine that starts again would bring back what has the policy `always`.
        self.engine.set_restart(member.id, {"Name": "no"})
        self.engine.stop(member.id, grace_s)

    @staticmethod
    def _each(members: Iterable[Member], act: Callable[[Member], None]) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fieldpost-engine") as pool:
            list(pool.map(act, list(members)))

    @staticmethod
    def _member(document: dict[str, Any]) -> Member | None:
        labels = document.get("Labels") or {}
        with contextlib.suppress(KeyError, ValueError):
            return Member(
                id=str(document["Id"]),
                role=labels[names.ROLE],
                revision=int(labels[names.REVISION]),
                slot=int(labels.get(names.SLOT, 0)),
                run=labels.get(names.RUN, ""),
                spec=labels.get(names.FRONT_SPEC, ""),
                state=str(document.get("State", "")).lower(),
                image=str(document.get("ImageID") or document.get("Image") or ""),
            )
        return None
