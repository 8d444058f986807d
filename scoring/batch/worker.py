"""`python -m scoring.batch.worker ROOT NAME THREADS`: a model alone, asked through pipes.

It reads requests from stdin and answers on what was stdout; what a script prints goes to stderr.
It ends when its parent does: nothing comes any more.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

EXIT_NOT_LOADED = 3


def main(arguments: Sequence[str]) -> int:
    """Answers until its parent has no more to ask.

    Returns:
        0 at the end, 3 where the model does not load.
    """
    requests, answers = _take_pipes()
    from scoring.batch import frames  # noqa: PLC0415 - numpy, behind the pipes
    from scoring.batch.models import open_model  # noqa: PLC0415

    _share(int(arguments[3]))
    try:
        model = open_model(Path(arguments[1]))
    except BaseException as error:  # noqa: BLE001 - a script may raise anything; all is reported
        frames.write(answers, _failure(error))
        return EXIT_NOT_LOADED
    import msgspec  # noqa: PLC0415

    frames.write(answers, {"ready": os.getpid(), "schema": msgspec.to_builtins(model.schema)})
    while (request := frames.read(requests)) is not None:
        try:
            answer = _answer(model, request)
        except Exception as error:  # noqa: BLE001 - told to the parent
            answer = _failure(error)
        frames.write(answers, answer)
    return 0


def _answer(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    from scoring.batch import frames  # noqa: PLC0415 - loaded already

    if "body" in request:
        return {"body": model.ask(request["body"])}
    return {"outputs": frames.pack(model.predict(frames.unpack(request["inputs"])))}


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes under numbers of their own, so that no script writes into them."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def _share(threads: int) -> None:
    if threads:
        from scoring.runtimes.threads import set_share  # noqa: PLC0415 - not before the pipes

        set_share(threads)


def _failure(error: BaseException) -> dict[str, Any]:
    from scoring.errors import FieldpostError  # noqa: PLC0415 - loaded already

    if isinstance(error, FieldpostError):
        return {"error": {**error.to_dict(), "detail": error.detail}}
    trace = "".join(traceback.format_exception(error))
    message = f"{type(error).__name__}: {error}"
    return {"error": {"code": "scoring_failed", "message": message, "detail": trace}}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
