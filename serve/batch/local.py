"""A run in processes of this machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from scoring.batch.child import Child
from scoring.batch.planning import make_plan
from scoring.batch.records import Options, Plan, Summary
from scoring.batch.results import Result
from scoring.batch.runner import Setup
from serve.batch.coordinator import Crew, Watcher, score_shards
from serve.batch.locking import locked

if TYPE_CHECKING:
    from scoring.batch.records import Done
    from serve.batch.things import Thing

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Follower(Watcher):
    """Is told of a whole run."""

    def planned(self, plan: Plan, already: int) -> None:
        """The dataset fits; so many shards were scored before."""

    def counted(self, done: int, whole: int) -> None:
        """Of a job's numbers, so many are done."""


@dataclass(frozen=True, slots=True)
class How:
    """How a run goes on this machine.

    Attributes:
        workers: Processes that score; 0: one for each core.
        attempts: For one shard.
        overwrite: What is in the result's place is thrown away.
    """

    workers: int = 0
    attempts: int = 4
    overwrite: bool = False


def plan_run(thing: Thing, options: Options) -> Plan:
    """The plan of a run; the model is started for it, and nothing is written.

    Raises:
        UnknownInputError: The dataset does not fit the model; all reasons stand in it.
    """
    with _asked(thing) as model:
        return make_plan(options, model, thing.digest)


def run(
    thing: Thing,
    options: Options,
    how: How,
    follower: Follower,
    begun: Callable[[], object] = lambda: None,
) -> Summary:
    """Scores a dataset, or goes on where a run before has ended.

    Args:
        thing: What answers.
        options: With the dataset and the result.
        how: With how many processes.
        follower: Told of progress.
        begun: Called when the dataset fits, and its result has its place.

    Raises:
        InputError: The dataset does not fit, or a row is not taken; says which.
        AlreadyExistsError: Something else is in the result's place.
        InUseError: Another run is at work on it.
    """
    started = time.monotonic()
    plan = plan_run(thing, options)
    result = Result(options.output)
    if how.overwrite:
        with locked(result):
            result.clear()
    result.claim(plan)
    with locked(result):
        begun()
        result.store.tidy(result.state)
        present = result.summary()
        if present is not None and result.is_finished():
            follower.planned(plan, len(plan.shards))
            return msgspec.structs.replace(present, resumed=present.shards, seconds=0.0)
        marked = result.marks(plan)
        follower.planned(plan, len(marked))
        waiting = [shard for shard in range(len(plan.shards)) if shard not in marked]
        if waiting:
            workers = min(how.workers or _cores(), len(waiting))
            score_shards(waiting, _crew(thing, options, workers, how.attempts), follower)
        return result.finish(plan, len(marked), time.monotonic() - started)


@contextlib.contextmanager
def _asked(thing: Thing) -> Iterator[Child]:
    model = Child([*thing.command, str(_cores())], thing.environment, thing.folder or None)
    try:
        yield model
    finally:
        model.close()


def _crew(thing: Thing, options: Options, workers: int, attempts: int) -> Crew:
    """Workers that share the cores: each one's libraries start no more threads than its part."""
    threads = max(1, _cores() // workers)
    environment = {name: str(threads) for name in _THREADS} if workers > 1 else {}
    setup = Setup(
        output=options.output,
        command=(*thing.command, str(threads)),
        environment={**environment, **thing.environment},
        folder=thing.folder,
    )
    return Crew(setup, workers, attempts)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class Nobody(Follower):
    """Takes no interest."""

    def scored(self, rows: int) -> None:
        """See `Watcher`."""

    def finished(self, done: Done) -> None:
        """See `Watcher`."""

    def retrying(self, shard: int, reason: str) -> None:
        """See `Watcher`."""

    def counted(self, done: int, whole: int) -> None:
        """See `Follower`."""
