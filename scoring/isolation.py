"""Runs `prepare` in a child process, whatever the model does to the process that loads it.

Parent and child exchange files in a temporary folder of the parent's making: the request, a pickle
of the sample (made by the parent, read by the child, never the other way), the stage that the child
has reached, and its result as JSON. All that the child prints goes to a file that the parent logs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from scoring.errors import CorruptModelError, FieldpostError, ScoringError
from scoring.formats.base import Trust
from scoring.prepare import Prepared, prepare_with

log = logging.getLogger(__name__)

_REQUEST, _RESULT, _STAGE = "request.json", "result.json", "stage"
_SAMPLE, _OUTPUT = "sample.pickle", "output.txt"
_TAIL = 4000
_LIFELINE = 0


class _Request(msgspec.Struct, frozen=True):
    """The arguments of `prepare_with`; a sample that is no path is in a file of its own."""

    path: str
    out: str
    trust: Trust
    tolerance: float
    sample_path: str | None = None
    not_compiled: str = ""


class _Failure(msgspec.Struct, frozen=True):
    """An error of the child's, to be raised again in the parent."""

    code: str
    message: str
    hint: str
    where: str
    detail: str


class _Result(msgspec.Struct, frozen=True):
    """What the child writes: one of the two."""

    prepared: Prepared | None = None
    failure: _Failure | None = None


def run(path: Path, out: Path, *, trust: Trust, sample: Any, tolerance: float) -> Prepared:
    """Prepares a model in a child process; see `scoring.prepare.prepare`.

    Where the converter ends the child, a second one prepares the original alone.

    Raises:
        CorruptModelError: The child died before it had loaded the model.
        FieldpostError: What `prepare` raised in the child.
    """
    in_file = isinstance(sample, str | Path)
    request = _Request(
        path=str(Path(path).absolute()),
        out=str(Path(out).absolute()),
        trust=trust,
        tolerance=tolerance,
        sample_path=str(Path(sample).absolute()) if in_file else None,
    )
    with tempfile.TemporaryDirectory(prefix="fieldpost-prepare-") as name:
        folder = Path(name)
        if sample is not None and not in_file:
            (folder / _SAMPLE).write_bytes(pickle.dumps(sample, protocol=5))
        status = _spawn(folder, request)
        result = _read_result(folder)
        if result is None and (folder / _STAGE).exists():
            ended = f"Compiling ended its process ({_ending(status)})."
            status = _spawn(folder, msgspec.structs.replace(request, not_compiled=ended))
            result = _read_result(folder)
        if result is None:
            raise _died(path, status, _output_tail(folder))
    if result.failure is not None:
        raise _error(result.failure)
    assert result.prepared is not None
    return result.prepared


def _spawn(folder: Path, request: _Request) -> int:
    """Runs one child to its end; returns its status as `subprocess` gives it."""
    (folder / _REQUEST).write_bytes(msgspec.json.encode(request))
    (folder / _STAGE).unlink(missing_ok=True)
    with (folder / _OUTPUT).open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - our own module
            # -P keeps the current folder off the path, unless it is on that of this process.
            [sys.executable, "-P", "-m", "scoring.prepare", str(folder)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=_environment(),
        )
        # Its standard input stays open and silent until this process is gone.
        with child:
            try:
                status = child.wait()
            except BaseException:
                child.kill()
                raise
    for line in _output_tail(folder).splitlines():
        log.info("%s: %s", request.path, line)
    return status


def _environment() -> dict[str, str]:
    """This process's environment; what it can import, the child can."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        str(Path(entry or ".").absolute()) for entry in sys.path
    )
    return environment


def _read_result(folder: Path) -> _Result | None:
    try:
        result = msgspec.json.decode((folder / _RESULT).read_bytes(), type=_Result)
    except (OSError, msgspec.DecodeError):
        return None
    return result if (result.prepared is None) != (result.failure is None) else None


def _output_tail(folder: Path) -> str:
    content = (folder / _OUTPUT).read_bytes()[-_TAIL:]
    return content.decode(errors="replace").strip()


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


def _died(path: Path, status: int, output: str) -> CorruptModelError:
    hint = "Load it in Python with the versions it was made with, and save it again."
    if status == -signal.SIGKILL:
        hint = "The system may have run out of memory: load it where there is more. " + hint
    return CorruptModelError(
        f"Loading {path} ended its process ({_ending(status)}).",
        hint=hint,
        where=str(path),
        detail=output,
    )


def _error(failure: _Failure) -> FieldpostError:
    """The child's error as an error of the same class."""
    # A class without a code of its own stands for the one that it is derived from.
    classes = {kind.code: kind for kind in _subclasses(FieldpostError) if "code" in vars(kind)}
    kind = classes.get(failure.code, ScoringError)
    return kind(failure.message, hint=failure.hint, where=failure.where, detail=failure.detail)


def _subclasses(kind: type[FieldpostError]) -> Iterator[type[FieldpostError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _subclasses(inner)


def child(folder: Path) -> None:
    """What the child process does: one request, one result."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    request = msgspec.json.decode((folder / _REQUEST).read_bytes(), type=_Request)
    partial = folder / (_RESULT + ".partial")
    partial.write_bytes(msgspec.json.encode(_answer(folder, request)))
    partial.replace(folder / _RESULT)


def _follow_parent() -> None:
    """Ends this process when the parent's end of standard input closes."""
    with contextlib.suppress(OSError):
        while os.read(_LIFELINE, 1):
            pass
    os._exit(1)


def _answer(folder: Path, request: _Request) -> _Result:
    try:
        prepared = prepare_with(
            Path(request.path),
            Path(request.out),
            trust=request.trust,
            sample=_sample(folder, request),
            tolerance=request.tolerance,
            before_compiling=(folder / _STAGE).touch,
            not_compiled=request.not_compiled,
        )
    except FieldpostError as error:
        return _Result(failure=_failure(error))
    except BaseException as error:  # noqa: BLE001 - a pickle may raise SystemExit
        return _Result(failure=_failure(_unexpected(error, request.path)))
    return _Result(prepared=prepared)


def _sample(folder: Path, request: _Request) -> Any:
    if request.sample_path is not None:
        return Path(request.sample_path)
    file = folder / _SAMPLE
    return pickle.loads(file.read_bytes()) if file.exists() else None  # noqa: S301 - the parent's


def _unexpected(error: BaseException, path: str) -> CorruptModelError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return CorruptModelError(
        f"{path} could not be prepared: {reason}",
        hint="Load it in Python with the versions it was made with, and save it again.",
        where=path,
        detail="".join(traceback.format_exception(error)),
    )


def _failure(error: FieldpostError) -> _Failure:
    return _Failure(error.code, error.message, error.hint, error.where, error.detail)
