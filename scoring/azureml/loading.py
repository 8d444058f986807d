"""Imports the user's script, checks `init` and `run`, and calls `init()`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from scoring.azureml import coroutines, logs, state
from scoring.errors import EntryScriptError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from scoring.azureml.settings import ScriptSettings

MODULE_NAME = "entry_module"
HEADERS_PARAMETER = "request_headers"
_MODEL_DIR = "AZUREML_MODEL_DIR"
_OF_THE_EXTRA = ("flask", "inference_schema", "werkzeug")

Kind = Literal["text", "schema", "raw"]

logger = logging.getLogger("azmlinfsrv.user_script")


@dataclass(frozen=True, slots=True)
class Script:
    """A script whose `init()` has run.

    Attributes:
        run: The function to call, with keyword arguments, from any thread.
        declared: `run` as the script has it: the key to its schemas.
        kind: What `run` gets: the body as `text`, arguments by `schema`, or the `raw` request.
        parameters: Those of `run`, without `request_headers`.
        wants_headers: `run` takes `request_headers`.
        loop: Where `run` is `async def`, the loop of the thread that loaded the script: `init` ran
            on it, and so has `run` to. None for any other `run`.
    """

    run: Callable[..., Any]
    declared: Callable[..., Any]
    kind: Kind
    parameters: tuple[inspect.Parameter, ...]
    wants_headers: bool
    loop: AbstractEventLoop | None = None


def load(settings: ScriptSettings) -> Script:
    """Loads a script into this process and calls its `init()`.

    Raises:
        EntryScriptError: With the script's own traceback in `detail` where it raised anything,
            `SystemExit` included.
    """
    _forget_previous_script()
    state.strict = settings.strict
    _export(settings)
    _extend_path(settings)
    module = _import_script(settings)
    init, run = _functions(module)
    script = _analyse(run, strict=settings.strict)
    _call_init(init, script.loop, settings)
    return script


def _forget_previous_script() -> None:
    """inference-schema and `@rawhttp` mark functions by name, for the whole process."""
    state.raw_http = False
    schema_util = sys.modules.get("inference_schema.schema_util")
    for table in ("__functions_schema__", "__versions__"):
        marks: dict[str, Any] = getattr(schema_util, table, {})
        for name in [n for n in marks if n.startswith(f"{MODULE_NAME}.")]:
            del marks[name]
    sys.modules.pop(MODULE_NAME, None)


def _export(settings: ScriptSettings) -> None:
    """Scripts read these from the environment, wherever the setting came from."""
    os.environ["AML_APP_ROOT"] = settings.app_root
    if settings.entry_script:
        os.environ["AZUREML_ENTRY_SCRIPT"] = settings.entry_script
    if settings.model_dir:
        os.environ[_MODEL_DIR] = settings.model_dir


def _extend_path(settings: ScriptSettings) -> None:
    root = Path(settings.app_root)
    folders = [settings.app_root]
    if settings.source_directory:
        folders.append(str(root / settings.source_directory))
    if settings.script_path and not settings.strict:
        # Last, so that it adds modules and never hides one that Azure's server would find.
        folders.append(str(settings.script_path.parent))
    sys.path.extend(f for f in dict.fromkeys(folders) if f not in sys.path)


def _import_script(settings: ScriptSettings) -> ModuleType:
    path = settings.script_path
    if path is not None and not path.is_file():
        raise EntryScriptError(
            f"There is no scoring script at {path}.",
            hint=f"The entry script is looked for below {settings.app_root}.",
            where=str(path),
        )
    try:
        return importlib.import_module("main") if path is None else _import_file(path)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        sys.modules.pop(MODULE_NAME, None)
        raise _script_error("importing it", path or Path("main.py"), error) from error


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise EntryScriptError(
            f"{path} is not a Python file.", hint="Name a script that ends in .py.", where=str(path)
        )
    module = importlib.util.module_from_spec(spec)
    # Pickles, dataclasses and type hints look their module up here.
    sys.modules[MODULE_NAME] = module
    spec.loader.exec_module(module)
    return module


def _functions(module: ModuleType) -> tuple[Callable[..., Any], Callable[..., Any]]:
    where = str(module.__file__)
    for name in ("init", "run"):
        if not callable(getattr(module, name, None)):
            raise EntryScriptError(
                f"User script at {where} does not have a {name}() function defined.",
                hint="A scoring script defines init(), called once, and run(data).",
                where=where,
            )
    driven = getattr(module, "driver_module", None)
    if isinstance(driven, ModuleType) and hasattr(driven, "run"):
        # A generated driver does its own work in init() and only forwards run(), which breaks
        # arguments by schema.
        logger.info("Found driver script at %s and the score script at %s", where, driven.__file__)
        return module.init, driven.run
    logger.info("Found user script at %s", where)
    return module.init, module.run


def _analyse(run: Callable[..., Any], *, strict: bool) -> Script:
    parameters = tuple(inspect.signature(run).parameters.values())
    allowed = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind not in allowed for parameter in parameters):
        raise _signature_error("run() cannot accept positional-only arguments, *args, or **kwargs.")
    own = tuple(p for p in parameters if p.name != HEADERS_PARAMETER)
    wants_headers = len(own) < len(parameters)
    if not own and wants_headers:
        raise _signature_error('run() needs to accept an argument other than "request_headers".')
    if not own:
        raise _signature_error("run() needs to accept an argument for input data.")
    kind = _kind(run)
    required = [p.name for p in own[1:] if p.default is p.empty]
    if required and kind != "schema" and not strict:
        raise _signature_error(f"run() has more than one required argument: {', '.join(required)}.")
    # Azure's server would call an asynchronous run(), and fail to write the coroutine as JSON.
    loop = coroutines.new_loop() if coroutines.is_async(run) and not strict else None
    return Script(run, run, kind, own, wants_headers, loop)


def _kind(run: Callable[..., Any]) -> Kind:
    # Only a script that imports inference-schema can be decorated with it.
    schema_util = sys.modules.get("inference_schema.schema_util")
    decorated = schema_util is not None and schema_util.is_schema_decorated(run)
    if state.raw_http and decorated:
        raise _signature_error("run() cannot be decorated with both @rawhttp and @input_schema")
    if state.raw_http:
        return "raw"
    return "schema" if decorated else "text"


def _signature_error(message: str) -> EntryScriptError:
    return EntryScriptError(
        message,
        hint="Declare run(data), run(data, request_headers), or decorate it with @input_schema.",
    )


def _call_init(
    init: Callable[..., Any], loop: AbstractEventLoop | None, settings: ScriptSettings
) -> None:
    logger.info("Invoking user's init function")
    try:
        coroutines.complete(init(), loop)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        logs.log_model_dir(settings.model_dir)
        raise _script_error("init()", settings.script_path or Path("main.py"), error) from error
    logger.info("Users's init has completed successfully")


def _script_error(step: str, path: Path, error: BaseException) -> EntryScriptError:
    reason = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    trace = _own_frames(error.__traceback__)
    detail = "".join(traceback.format_exception(type(error), error, trace))
    return EntryScriptError(
        f"The scoring script {path} failed in {step}: {reason}",
        hint=_hint(error),
        where=_place(path, trace, error),
        detail=detail,
    )


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the script's own first frame on."""
    here = str(Path(__file__).parent)
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith((here, "<frozen importlib")) and name != importlib.__file__:
            return trace
        trace = trace.tb_next
    return None


def _place(path: Path, trace: TracebackType | None, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [f for f in traceback.extract_tb(trace) if f.filename == str(path)]
    return f"{path}:{lines[-1].lineno}" if lines else str(path)


def _hint(error: BaseException) -> str:
    if isinstance(error, ImportError) and (error.name or "").startswith("azureml.core"):
        return (
            "Of azureml.core only Model.get_model_path is here; add azureml-core to the "
            "environment, or leave the import out."
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = error.name.partition(".")[0] in _OF_THE_EXTRA
        here = "; for 'fieldpost serve', pip install 'fieldpost[azureml]' has it" if extra else ""
        return f"Add what provides the module {error.name!r} to the environment{here}."
    folder = os.environ.get(_MODEL_DIR, "")
    if not folder and _misses_model_dir(error):
        return f"{_MODEL_DIR} is not set: serve the script with a model, or with --model-dir DIR."
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{_MODEL_DIR} is {folder!r} and holds: {_content(Path(folder)) or 'nothing'}."
    return "Mend the script; the traceback is its own."


def _misses_model_dir(error: BaseException) -> bool:
    """Whether it is what comes of `os.environ[...]`, or of `os.getenv(...)` in a path."""
    if isinstance(error, KeyError):
        return error.args == (_MODEL_DIR,)
    # What os.path and pathlib say of None differs from one version of Python to the next.
    return isinstance(error, FileNotFoundError) or (
        isinstance(error, TypeError) and "NoneType" in str(error)
    )


def _content(folder: Path) -> str:
    return ", ".join(sorted(p.name for p in folder.iterdir())[:10]) if folder.is_dir() else ""
