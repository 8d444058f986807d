"""One pod of a job: every Nth shard, beginning with the pod's own number.

`python -I -S ROOT/runtime/scoring/boot.py ROOT batch` in an image. What a pod is to do stands in
`FIELDPOST_BATCH`; which one it is, the cluster says in `JOB_COMPLETION_INDEX`. Pods need nothing
of each other: each makes the plan where it is not there yet, and the last one joins the results.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from scoring.batch.models import Model, open_model
from scoring.batch.planning import make_plan
from scoring.batch.records import Options, Plan
from scoring.batch.results import Result
from scoring.batch.shards import Scorer
from scoring.errors import (
    AlreadyExistsError,
    FieldpostError,
    InputError,
    ModelFileError,
    UsageError,
)

VARIABLE = "FIELDPOST_BATCH"
INDEX = "JOB_COMPLETION_INDEX"

FAILED = 1
BAD_ROW = 65
"""A row is not taken: another pod would find the same."""
BAD_RUN = 78
"""The dataset does not fit, or the model does not load: no pod would do better."""

_ATTEMPTS = 3
_PLAN_WAIT_S = 120.0
_LOOK_S = 0.5
_SAID = 10

logger = logging.getLogger("fieldpost.batch")


class Work(msgspec.Struct, frozen=True):
    """What all pods of a job are told.

    Attributes:
        model: The digest of the package.
        options: The user's; with places as the pods see them.
        tasks: How many numbers there are.
    """

    model: str
    options: Options
    tasks: int = 1


def main(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Scores the shards of one number.

    Returns:
        0 where all are done, `BAD_ROW`, `BAD_RUN`, or `FAILED` for what may pass.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    variables = os.environ if environment is None else environment
    try:
        work = msgspec.json.decode(variables.get(VARIABLE, ""), type=Work)
        number = int(variables.get(INDEX, "0"))
    except (msgspec.DecodeError, ValueError) as error:
        logger.error("%s or %s is wrong: %s", VARIABLE, INDEX, error)  # noqa: TRY400
        return BAD_RUN
    try:
        model = open_model(Path(arguments[1]))
        plan, result = _begin(work, number, model)
    except (InputError, ModelFileError, UsageError, AlreadyExistsError) as error:
        return _told(error, BAD_RUN)
    except FieldpostError as error:
        return _told(error, FAILED if error.retryable else BAD_RUN)
    if result.is_finished():
        return 0
    try:
        _score(plan, result, model, range(number, len(plan.shards), work.tasks))
        _end(plan, result)
    except InputError as error:
        return _told(error, BAD_ROW)
    except FieldpostError as error:
        return _told(error, FAILED)
    return 0


def _begin(work: Work, number: int, model: Model) -> tuple[Plan, Result]:
    """The plan: number 0 looks whether it is still that of the dataset, the others believe it."""
    result = Result(work.options.output)
    plan = None if number == 0 else _await_plan(result, work)
    if plan is None:
        plan = make_plan(work.options, model, work.model)
        result.claim(plan)
    return plan, result


def _await_plan(result: Result, work: Work) -> Plan | None:
    """The plan of another pod; None where none comes."""
    deadline = time.monotonic() + _PLAN_WAIT_S
    while time.monotonic() < deadline:
        plan = result.plan()
        if plan is not None and (plan.model, plan.options) == (work.model, work.options):
            return plan
        if plan is not None:
            return None  # told as another run's by whoever makes this one's
        time.sleep(_LOOK_S)
    return None


def _score(plan: Plan, result: Result, model: Model, shards: range) -> None:
    marked = result.marks(plan)
    scorer = Scorer(plan, model, result)
    for shard in shards:
        if shard in marked:
            continue
        for attempt in Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(0.5, 10.0),
            reraise=True,
        ):
            with attempt:
                done = scorer.run(shard)
                logger.info("shard %d of %d: %d rows", shard, len(plan.shards), done.rows)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, OSError) or (isinstance(error, FieldpostError) and error.retryable)


def _end(plan: Plan, result: Result) -> None:
    """Joins the results where this pod is the last; two that believe so do the same."""
    if len(result.marks(plan)) < len(plan.shards) or result.is_finished():
        return
    try:
        summary = result.finish(plan)
    except FieldpostError:
        if not result.is_finished():
            raise
    else:
        logger.info("%s: %d rows, %d rejected", result.path, summary.rows, summary.rejected)


def _told(error: FieldpostError, status: int) -> int:
    logger.error("%s", error.message)
    for line in filter(None, [error.hint, *error.detail.splitlines()[-_SAID:]]):
        logger.error("%s", line)
    with contextlib.suppress(OSError):
        Path("/dev/termination-log").write_text(f"{error.message} {error.hint}", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv))
