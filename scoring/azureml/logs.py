"""Where a script's output goes: its `print`, its `logging`, and its own `logging.json`."""

from __future__ import annotations

import builtins
import functools
import json
import logging
import logging.config
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from scoring.azureml.log_config import AMLLogFormatter
from scoring.errors import EntryScriptError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scoring.azureml.settings import ScriptSettings

LOGGING_FILE = "logging.json"

logger = logging.getLogger("azmlinfsrv")
_print_logger = logging.getLogger("azmlinfsrv.print")
_print = builtins.print
_last_resort = logging.lastResort


class _CurrentStream(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stdout` (or `sys.stderr`) is at the time of the message."""

    def __init__(self, name: str) -> None:
        # Not StreamHandler's own: it would fix the stream.
        logging.Handler.__init__(self, logging.INFO)
        self._stream_name = name
        self.setFormatter(AMLLogFormatter())

    @property
    def stream(self) -> TextIO:
        return getattr(sys, self._stream_name)  # type: ignore[no-any-return]

    @stream.setter
    def stream(self, value: TextIO) -> None:  # noqa: ARG002  -- refused
        raise AttributeError("The stream follows the process's own.")


def configure(settings: ScriptSettings) -> None:
    """Sets up logging and turns `print` into log lines, before the script is imported.

    Raises:
        EntryScriptError: The user's `logging.json` cannot be applied.
    """
    path = _user_config(settings)
    if path:
        _apply(path, strict=settings.strict)
    else:
        _configure_default(settings)
    builtins.print = _print_to_log  # type: ignore[assignment]  # narrower on purpose


def restore() -> None:
    """Gives `print` and the log handlers back as they were."""
    builtins.print = _print
    logging.lastResort = _last_resort
    logger.handlers[:] = [h for h in logger.handlers if not isinstance(h, _CurrentStream)]
    logger.propagate = True
    logger.disabled = _print_logger.disabled = False
    logger.setLevel(logging.NOTSET)


def _configure_default(settings: ScriptSettings) -> None:
    if not logger.handlers:
        logger.addHandler(_CurrentStream("stdout"))
        logger.propagate = False
    logger.setLevel(logging.INFO)
    if not settings.strict:
        _show_the_scripts_own(settings.log_level)


def _show_the_scripts_own(level_name: str) -> None:
    """Makes `logging.info` visible and leaves `logging.basicConfig` to the script.

    With a handler on the root logger a script's `basicConfig` would do nothing, so the handler of
    last resort takes the messages until the script sets up its own.
    """
    level = logging.getLevelNamesMapping().get(level_name.upper())
    if level is None:
        raise EntryScriptError(
            f"{level_name!r} is no log level.",
            hint="Set AZUREML_LOG_LEVEL to DEBUG, INFO, WARNING, ERROR or CRITICAL.",
            where="AZUREML_LOG_LEVEL",
        )
    logging.getLogger().setLevel(level)
    handler = _CurrentStream("stderr")
    handler.setLevel(level)
    logging.lastResort = handler


def _user_config(settings: ScriptSettings) -> Path | None:
    folders = [Path(settings.app_root)]
    if settings.script_path:
        folders.append(settings.script_path.parent)
    return next((f / LOGGING_FILE for f in folders if (f / LOGGING_FILE).is_file()), None)


def _apply(path: Path, *, strict: bool) -> None:
    # Python's default would silence what the server and `print` log, as it does on Azure.
    defaults = {} if strict else {"disable_existing_loggers": False}
    try:
        logging.config.dictConfig(defaults | json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise EntryScriptError(
            f"The logging configuration {path} cannot be applied: {error}.",
            hint="Write it as for Python's logging.config.dictConfig.",
            where=str(path),
        ) from error
    logger.info("Loaded logging config from %s", path)


@functools.wraps(_print)
def _print_to_log(
    *objects: object,
    sep: str | None = None,
    end: str | None = None,
    file: IO[Any] | None = None,
    flush: bool = False,
) -> None:
    if file is None or file is sys.stdout:
        _print_logger.info("%s", (" " if sep is None else sep).join(map(str, objects)))
    else:
        _print(*objects, sep=sep, end=end, file=file, flush=flush)


def log_model_dir(model_dir: str, limit: int = 200) -> None:
    """Logs what is in the model folder: most failures of `init()` are a wrong path into it."""
    if not model_dir or not Path(model_dir).is_dir():
        return
    logger.info("Model Directory Contents:")
    for number, line in enumerate(tree(model_dir)):
        if number == limit:
            logger.info("Output Truncated. First %d lines shown.", limit)
            return
        logger.info("%s", line)


def tree(folder: str) -> Iterator[str]:
    """The folder's content, one line each, indented by depth, folders with a slash."""
    for path, folders, files in os.walk(folder):
        folders.sort()
        depth = len(Path(path).relative_to(folder).parts)
        yield f"{'    ' * depth}{Path(path).name}/"
        yield from (f"{'    ' * (depth + 1)}{name}" for name in sorted(files))
