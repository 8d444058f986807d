"""Brings a revision up beside the one before, and moves the deployment over to it.

The order makes every moment safe to be killed in: a new worker's gate is shut until the registry
has its revision as active, and the old workers end after that. `settle` finishes what a killed
command has begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import FieldpostError, TargetError
from serve.engines.faults import ConflictError, PortTakenError
from serve.targets.docker import names, specs
from serve.targets.docker.ports import free_port, port_of
from serve.targets.docker.waiting import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.targets.base import Progress
    from serve.targets.docker.crew import Crew, Member
    from serve.targets.docker.settings import DockerSettings
    from serve.targets.docker.specs import ImageFacts

_TRIES = 5
_FRONT_GRACE_S = 2.0


class Launch(NamedTuple):
    """A revision that is to answer.

    Attributes:
        revision: Its number.
        settings: Its settings.
        image: Of its package, in the engine.
        address: The URL that the deployment has had; empty before its first revision.
    """

    revision: int
    settings: DockerSettings
    image: ImageFacts
    address: str


class Ready(NamedTuple):
    """A revision whose workers are ready and accept nothing yet.

    Attributes:
        front: It joined this one.
        port: That is published.
        workers: Its containers.
    """

    front: Member
    port: int
    workers: tuple[Member, ...]


class Launcher:
    """Changes the containers of one deployment.

    Args:
        crew: They.
        progress: Takes sentences.
    """

    def __init__(self, crew: Crew, progress: Progress) -> None:
        self._crew = crew
        self._engine = crew.engine
        self._progress = progress
        self._facts = specs.EngineFacts(
            self._engine.kind,
            selinux=self._engine.has_selinux,
            restarts_later=self._engine.updates_restart,
            memory=self._engine.can_limit("MemoryLimit"),
            pids=self._engine.can_limit("PidsLimit"),
        )

    def settle(self, active: int | None) -> None:
        """Removes what a killed command has left, and finishes the move that it had begun.

        Args:
            active: The revision that the registry has as the one that answers.
        """
        workers = self._crew.workers()
        # Newer ones never became active: their gates have never been open.
        self._crew.remove([each for each in workers if each.revision > (active or 0)])
        current = [each for each in workers if each.revision == active]
        older = [each for each in workers if each.revision < (active or 0)]
        front = self._front_of(current)
        if front is not None and any(each.is_up for each in older):
            self._engine.signal(front.id, "SIGUSR1")
            if Watch.answering(self._crew, front, current):
                self._progress("finishing what a killed command had begun")
                self._retire(older, front)
        self._sweep()

    def prepare(self, launch: Launch) -> Ready:
        """Starts the revision's workers beside what answers now, and waits until they are ready.

        Raises:
            DeploymentFailedError: They do not become ready; everything is as it was before.
            TargetError: The port is taken, or the engine cannot do what was asked.
        """
        before = self._crew.fronts()
        try:
            front, port = self._front(launch)
            workers = self._start_workers(launch, front)
            self._progress("waiting until the model is loaded")
            Watch(self._crew, front, launch.settings).until_ready(workers)
        except BaseException:
            self._undo(launch, before)
            raise
        return Ready(front, port, tuple(workers))

    def switch(self, ready: Ready, settings: DockerSettings) -> None:
        """Lets the new workers answer, and then the old ones go."""
        self._engine.signal(ready.front.id, "SIGUSR1")
        Watch(self._crew, ready.front, settings).until_open(ready.workers)
        for each in ready.workers:
            self._engine.set_restart(each.id, specs.restart_policy(settings))
        self._engine.set_restart(ready.front.id, specs.front_policy(settings))
        new = {each.id for each in ready.workers}
        old = [each for each in self._crew.workers() if each.id not in new]
        if any(each.is_up for each in old):
            self._progress("waiting for the requests that the old revision has begun")
        self._retire(old, ready.front)

    def discard(self, ready: Ready) -> None:
        """Takes workers away whose gate was never opened."""
        self._crew.remove(ready.workers)
        self._sweep()

    def stop(self, grace_s: float) -> None:
        """Lets the workers answer what they have begun and ends everything; logs stay."""
        fronts = [each for each in self._crew.fronts() if each.is_up]
        workers = [each for each in self._crew.workers() if each.is_up]
        for each in fronts:
            self._engine.signal(each.id, "SIGUSR2")
        self._crew.stop(workers, grace_s)
        self._crew.stop(fronts, _FRONT_GRACE_S)

    def _front(self, launch: Launch) -> tuple[Member, int]:
        """The container that holds the port: the one that is there, or a new one."""
        wanted = launch.settings.port or port_of(launch.address)
        chosen = wanted or free_port(launch.settings.host)
        spec = specs.front_spec(launch.settings, chosen)
        present = self._crew.fronts()
        for each in present:
            if each.spec == spec and each.state != "dead":
                self._engine.start(each.id)
                return each, chosen
        self._make_room(present, chosen)
        return self._new_front(launch, chosen, fixed=bool(wanted))

    def _make_room(self, fronts: Sequence[Member], port: int) -> None:
        """Ends a front that has the same port in another way: on another address or network."""
        for each in fronts:
            if each.is_up and self._published(each) == port:
                self._progress(
                    f"port {port} changes hands: nothing answers until the new revision is ready"
                )
                self._engine.stop(each.id, _FRONT_GRACE_S)

    def _new_front(self, launch: Launch, port: int, *, fixed: bool) -> tuple[Member, int]:
        for attempt in range(1, _TRIES + 1):
            try:
                return self._create_front(launch, port), port
            except PortTakenError as error:
                if fixed or attempt == _TRIES:
                    raise TargetError(
                        f"Port {port} on {launch.settings.host} cannot be published: it is taken.",
                        hint="End what listens there, or choose another port: --set port=PORT.",
                        where="port",
                    ) from error
                port = free_port(launch.settings.host)
        raise AssertionError("unreachable")

    def _create_front(self, launch: Launch, port: int) -> Member:
        own, number = self._crew.own, launch.revision
        labels = {**own.labels, names.ROLE: names.FRONT}
        self._engine.create_volume(own.run(number), specs.run_options(self._facts), labels)
        document = specs.front(own, number, launch.image, launch.settings, self._facts, port)
        container = self._create(own.front(number), document)
        try:
            self._engine.start(container)
        except FieldpostError:
            self._engine.remove(container)
            raise
        return next(each for each in self._crew.fronts() if each.id == container)

    def _start_workers(self, launch: Launch, front: Member) -> list[Member]:
        own, settings = self._crew.own, launch.settings
        self._progress(f"starting {settings.workers} worker{'s' * (settings.workers > 1)}")
        for slot in range(settings.workers):
            document = specs.worker(
                own, launch.revision, slot, front.run, launch.image, settings, self._facts
            )
            self._engine.start(self._create(own.worker(launch.revision, slot), document))
        return self._crew.workers(launch.revision)

    def _create(self, name: str, document: specs.Document) -> str:
        """Creates a container in the place of one that a killed command has left."""
        try:
            return self._engine.create(name, document)
        except ConflictError:
            self._require_ours(name)
            self._engine.remove(name)
            return self._engine.create(name, document)

    def _require_ours(self, name: str) -> None:
        """Raises `TargetError` where somebody else has given a container our name."""
        found = self._engine.inspect(name) or {}
        labels = (found.get("Config") or {}).get("Labels") or {}
        if found and not self._crew.own.labels.items() <= labels.items():
            raise TargetError(
                f"{self._engine.where} has a container {name!r} that is not of this deployment.",
                hint="Rename it ('docker rename'), or deploy once more: each revision has its own.",
            )

    def _sweep(self) -> None:
        """Removes fronts and volumes that belong to no worker."""
        kept = {each.run for each in self._crew.workers()}
        self._crew.remove([each for each in self._crew.fronts() if each.run not in kept])
        self._crew.remove_volumes()

    def _undo(self, launch: Launch, before: Sequence[Member]) -> None:
        """Everything as it was before the revision was tried."""
        self._crew.remove(self._crew.workers(launch.revision))
        kept = {each.id for each in before}
        self._crew.remove([each for each in self._crew.fronts() if each.id not in kept])
        self._crew.remove_volumes()
        for each in before:
            if each.is_up and self._engine_lost(each):
                self._progress("bringing the revision before back")
                self._engine.start(each.id)
                workers = [worker for worker in self._crew.workers() if worker.run == each.run]
                for worker in workers:
                    self._engine.start(worker.id)
                timeout_s = launch.settings.ready_timeout_s
                Watch(self._crew, each, launch.settings).until_open(workers, timeout_s)

    def _engine_lost(self, front: Member) -> bool:
        """Whether a front that ran does not run now: it was ended to make room."""
        now = next((each for each in self._crew.fronts() if each.id == front.id), None)
        return now is not None and not now.is_up

    def _retire(self, old: Sequence[Member], front: Member) -> None:
        """Ends workers of earlier revisions, and the fronts that nobody needs any more."""
        grace_s = max((self._grace(each) for each in old), default=0)
        self._crew.stop([each for each in old if each.is_up], grace_s)
        self._crew.remove(old)
        fronts = [each for each in self._crew.fronts() if each.id != front.id]
        self._crew.stop([each for each in fronts if each.is_up], _FRONT_GRACE_S)
        self._crew.remove(fronts)
        self._crew.remove_volumes()

    def _grace(self, worker: Member) -> float:
        """As long as the worker's own settings give it."""
        found = self._engine.inspect(worker.id) or {}
        return float((found.get("Config") or {}).get("StopTimeout") or specs.LEAVE_S)

    def _front_of(self, workers: Sequence[Member]) -> Member | None:
        runs = {each.run for each in workers}
        return next((each for each in self._crew.fronts() if each.run in runs), None)

    def _published(self, front: Member) -> int:
        found = self._engine.inspect(front.id) or {}
        bindings = (found.get("HostConfig") or {}).get("PortBindings") or {}
        published = bindings.get(f"{specs.PORT}/tcp") or [{}]
        return int(published[0].get("HostPort") or 0)
