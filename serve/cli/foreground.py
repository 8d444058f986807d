"""The commands `fieldpost serve`."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scoring.commands.output import common, note

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import FrameType

    from scoring.errors import EntryScriptError
    from serve.roots import ServeOptions


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM before the server has taken the signals; a script's `init()` cannot swallow it."""


@click.command(help="Answer HTTP for a model, in the foreground.")
@click.argument("things", nargs=-1, metavar="[NAME=]THING...")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help="A folder with one folder for each model: its file, or one folder for each version.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=5001, show_default=True, type=click.IntRange(0, 65535), help="0: a free one."
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Processes that share the port and the cores.",
)
@click.option("--model-dir", type=click.Path(path_type=Path), help="AZUREML_MODEL_DIR of a script.")
@click.option("--source", type=click.Path(path_type=Path), help="The script's source folder.")
@click.option("--trust-pickle", is_flag=True, help="Load a pickle, which can run any code.")
@click.option(
    "--trust-type", "trusted_types", multiple=True, metavar="TYPE", help="A type for skops files."
)
@click.option(
    "--sample", type=click.Path(path_type=Path), help="Inputs to compare the compiled form on."
)
@click.option(
    "--azureml-compat",
    type=click.Choice(["corrected", "strict"]),
    default="corrected",
    show_default=True,
    help="strict: answer as azureml-inference-server-http does, also where it is plainly wrong.",
)
@click.option(
    "--scoring-timeout-ms",
    type=click.IntRange(min=1),
    help="The longest that one answer of a script may take. Default: an hour.",
)
@click.option(
    "--ready-file", type=click.Path(path_type=Path), help="Write the URL here when ready."
)
@common
def serve(
    things: tuple[str, ...],
    repository: Path | None,
    host: str,
    port: int,
    workers: int,
    model_dir: Path | None,
    source: Path | None,
    trust_pickle: bool,
    trusted_types: tuple[str, ...],
    sample: Path | None,
    azureml_compat: str,
    scoring_timeout_ms: int | None,
    ready_file: Path | None,
    as_json: bool,
    workspace: str | None,
) -> int:
    """Serves THING: a model file or folder, an entry script, or a registered NAME[:VERSION].

    Several models are served under their names: `fieldpost serve iris=iris.onnx digits:2`.
    """
    from scoring.errors import EntryScriptError, UsageError
    from scoring.formats.base import Trust
    from serve.roots import ServeOptions, open_root, remove_root
    from serve.server import foreground

    if not things and repository is None:
        raise UsageError(
            "There is nothing to serve.",
            hint="Name a model file, a script or a registered model, or give a --repository.",
        )
    settings = foreground.settings(
        host=host, port=port, workers=workers, azureml_compat=azureml_compat
    )
    if scoring_timeout_ms is not None:
        # Azure ML's own name for it, which workers inherit.
        os.environ["SCORING_TIMEOUT_MS"] = str(scoring_timeout_ms)

    def ready(url: str) -> None:
        if ready_file is not None:
            _write(ready_file, url)
        if as_json:
            from scoring.commands.output import write_json

            write_json({"url": url, "thing": things[0]} if alone else {"url": url})
        note(f"Ready: {url} (Ctrl-C stops)")

    served = ServeOptions(
        workspace=workspace,
        model_dir=model_dir,
        source=source,
        trust=Trust(pickle=trust_pickle, types=trusted_types),
        sample=sample,
        progress=note,
    )
    signal.signal(signal.SIGTERM, partial(_terminate, os.getpid()))
    alone = len(things) == 1 and repository is None and not _is_named(things[0])
    try:
        with (
            open_root(things[0], served) if alone else _several(things, repository, served)
        ) as root:
            return foreground.run(
                root, settings, on_ready=ready, on_leave=lambda: remove_root(root)
            )
    except EntryScriptError as error:
        return _not_loaded(error, as_json=as_json)
    except _TerminatedError:
        return 128 + signal.SIGTERM


def _is_named(thing: str) -> bool:
    return "=" in thing and not Path(thing).exists()


def _several(
    things: tuple[str, ...], repository: Path | None, options: ServeOptions
) -> AbstractContextManager[Path]:
    from scoring.errors import UsageError
    from serve.model_folders import open_models

    if options.model_dir is not None or options.source is not None:
        raise UsageError("--model-dir and --source go with one script.", hint="Leave them out.")
    return open_models(things, repository, options)


def _terminate(pid: int, number: int, _frame: FrameType | None) -> None:
    if os.getpid() != pid:  # a child that the script has forked
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    raise _TerminatedError


def _not_loaded(error: EntryScriptError, *, as_json: bool) -> int:
    """Tells of a script that does not load, with the exit status of Azure ML's own server."""
    from scoring.workerreports import EXIT_NOT_LOADED
    from serve.cli.main import report

    report(error, as_json=as_json)
    return EXIT_NOT_LOADED


def _write(path: Path, url: str) -> None:
    from scoring.durable import write_bytes

    write_bytes(path, url.encode() + b"\n")
