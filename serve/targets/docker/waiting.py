"""Waits until the workers of a revision are ready, and finds out why one is not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from scoring.errors import DeploymentFailedError
from serve.targets.docker.events import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serve.targets.docker.crew import Crew, Member
    from serve.targets.docker.settings import DockerSettings

POLL_S = 0.1
_TAIL = 60
_KILLED = 137
_NOT_STARTED = frozenset({126, 127})
_NOTHING = Told()


class Watch:
    """Waits for workers.

    Args:
        crew: The deployment's containers.
        front: The one that they join.
        settings: Of their revision.
        sleep: Waits between two looks.
        clock: Seconds.
    """

    def __init__(
        self,
        crew: Crew,
        front: Member,
        settings: DockerSettings,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._crew = crew
        self._front = front
        self._settings = settings
        self._sleep = sleep
        self._clock = clock

    def until_ready(self, workers: Sequence[Member]) -> None:
        """Returns when all of them have loaded the model.

        Raises:
            DeploymentFailedError: One has failed or ended, or the time is up.
        """
        deadline = self._clock() + self._settings.ready_timeout_s
        while True:
            told = self._crew.told(self._front)
            late = [each for each in workers if not told.get(each.source, _NOTHING).ready]
            if not late:
                return
            for each in late:
                self._require_alive(each, told.get(each.source, _NOTHING))
            self._require_front()
            if self._clock() > deadline:
                raise self._too_late(late[0])
            self._sleep(POLL_S)

    def until_open(self, workers: Sequence[Member], timeout_s: float = 5.0) -> bool:
        """Whether all of them accept connections within the time."""
        deadline = self._clock() + timeout_s
        while self._clock() < deadline:
            told = self._crew.told(self._front)
            if all(told.get(each.source, _NOTHING).answers for each in workers):
                return True
            self._sleep(POLL_S)
        return False

    @staticmethod
    def answering(crew: Crew, front: Member, workers: Sequence[Member]) -> bool:
        """Whether all of these workers take requests now."""
        told = crew.told(front)
        return bool(workers) and all(told.get(each.source, _NOTHING).answers for each in workers)

    def _require_alive(self, worker: Member, told: Told) -> None:
        if told.error is not None:
            text = {key: str(told.error.get(key) or "") for key in ("message", "hint", "where")}
            raise DeploymentFailedError(
                text["message"] or "A worker failed without a reason.",
                hint=text["hint"],
                where=text["where"],
                detail=told.detail or self._output(worker),
            )
        found = self._crew.engine.inspect(worker.id)
        if found is None:
            raise DeploymentFailedError(f"The container of worker {worker.source} was removed.")
        state = found.get("State") or {}
        if state.get("Status") in ("exited", "dead", "stopped") or found.get("RestartCount"):
            # The front may hear of a failure a moment after the engine has.
            late = self._crew.told(self._front).get(worker.source, _NOTHING)
            if late.error is not None and told.error is None:
                self._require_alive(worker, late)
            raise self._ended(worker, state)

    def _ended(self, worker: Member, state: dict[str, Any]) -> DeploymentFailedError:
        code = int(state.get("ExitCode") or 0)
        said = str(state.get("Error") or "").strip()
        reason = f"The worker {worker.source} ended with status {code}"
        hint = "The end of its output says why."
        if state.get("OOMKilled") or (code == _KILLED and self._settings.memory):
            reason = f"The worker {worker.source} was killed: it needs more memory than it may have"
            hint = f"Give it more than memory={self._settings.memory or 'the machine has'}."
        elif code in _NOT_STARTED:
            hint = "The image has no interpreter for the package: choose another base."
        return DeploymentFailedError(
            f"{reason}{f': {said}' if said else ''}.", hint=hint, detail=self._output(worker)
        )

    def _require_front(self) -> None:
        found = self._crew.engine.inspect(self._front.id)
        if found is None:
            raise DeploymentFailedError("The container that holds the port was removed.")
        if (found.get("State") or {}).get("Status") in ("exited", "dead", "stopped"):
            raise DeploymentFailedError(
                "The container that holds the port has ended.",
                hint="Its output says why.",
                detail=self._crew.output(self._front.id, _TAIL),
            )

    def _too_late(self, worker: Member) -> DeploymentFailedError:
        return DeploymentFailedError(
            f"The worker {worker.source} was not ready within "
            f"{self._settings.ready_timeout_s:g} s.",
            hint="Give it more time: --set ready_timeout_s=SECONDS.",
            detail=self._output(worker),
        )

    def _output(self, worker: Member) -> str:
        return self._crew.output(worker.id, _TAIL)
