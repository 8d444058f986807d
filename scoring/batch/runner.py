"""A process that scores shards for a coordinator: one order a line, one answer a line, in JSON.

It reads, asks the model (a process of its own below it) and writes. Where its coordinator has
gone, it ends at the next line that it would write.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import msgspec

from scoring.batch.child import Child
from scoring.batch.results import Result
from scoring.batch.shards import Scorer
from scoring.errors import FieldpostError, WorkspaceError


class Setup(msgspec.Struct, frozen=True):
    """What a runner is started with.

    Attributes:
        output: Of the run; its plan is there.
        command: Starts the model.
        environment: Of the model's process.
        folder: Where the model starts; empty: here.
    """

    output: str
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str = ""


class Order(msgspec.Struct, frozen=True):
    """A shard to score."""

    shard: int


def main(_arguments: Sequence[str]) -> int:
    """Obeys until nothing more comes; 0 at the end."""
    lines = sys.stdin.buffer
    try:
        setup = msgspec.json.decode(lines.readline(), type=Setup)
    except msgspec.DecodeError:
        return 0  # its coordinator ended before it began
    try:
        model = Child(setup.command, setup.environment, setup.folder or None)
    except FieldpostError as error:
        _say({"failed": _document(error)})
        return 3
    try:
        _obey(model, setup)
    except BrokenPipeError:
        return 0
    finally:
        model.close()
    return 0


def _obey(model: Child, setup: Setup) -> None:
    result = Result(setup.output)
    plan = result.plan()
    if plan is None:
        raise WorkspaceError(f"The plan of {setup.output} is gone.")
    scorer = Scorer(plan, model, result)
    _say({"ready": model.pid})
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        try:
            done = scorer.run(order.shard, lambda rows: _say({"rows": rows}))
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - told to the coordinator
            _say({"error": _document(error)})
        else:
            _say({"done": done})


def _document(error: Exception) -> dict[str, Any]:
    if isinstance(error, FieldpostError):
        return {**error.to_dict(), "detail": error.detail, "retryable": error.retryable}
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):  # of a disk or a network: its own words say all
        return {"code": "scoring", "message": message, "retryable": True}
    trace = "".join(traceback.format_exception(error))
    return {"code": "scoring", "message": message, "detail": trace, "retryable": False}


def _say(document: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(document) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
