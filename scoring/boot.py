"""The first code that runs inside a package: `python -I -S ROOT/runtime/scoring/boot.py ROOT`.

It builds `sys.path` from the standard library and the package's own layers alone, so that nothing
of the host answers requests, and then runs the worker, or a part of batch scoring. It imports the
standard library only: until it is done there is nothing else.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import locale
import os
import platform
import runpy
import site
import sys
from pathlib import Path
from typing import NoReturn

WORKER = "serve.server.worker"
MODULES = {"batch": "scoring.batch.pod", "batch-model": "scoring.batch.worker"}
"""What else there is to run than the server."""
FAILED = 3

_MACHINES = {"linux/amd64": ("x86_64", "amd64"), "linux/arm64": ("aarch64", "arm64")}
# What would change imports or answers in the children of a scoring script.
_SCRUBBED = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONPLATLIBDIR"),
    *(
        "PYTHONOPTIMIZE",
        "PYTHONINSPECT",
        "PYTHONWARNINGS",
        "PYTHONBREAKPOINT",
        "PYTHONPYCACHEPREFIX",
    ),
    "__PYVENV_LAUNCHER__",
)


def main(arguments: list[str]) -> None:
    """Runs the package whose root is the first argument: its server, or what the second names."""
    if not arguments:
        _fail("usage: python -I -S ROOT/runtime/scoring/boot.py ROOT [ARGUMENT ...]")
    root = Path(arguments[0]).absolute()
    _require_utf8()
    _require_interpreter(root)
    prepare(root)
    if os.getpid() == 1:  # in a container, without an init of the engine's
        from scoring.init import become_init  # noqa: PLC0415 - not importable before

        become_init()
    module = MODULES.get("".join(arguments[1:2]), WORKER)
    sys.argv = [module, str(root), *arguments[1:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def prepare(root: Path) -> None:
    """Makes the package's layers, and nothing of the host, importable.

    Byte code goes to the folder that `pycache` in the root leads to, shared by the packages
    of this machine, and nowhere where there is none: layers stay as they were unpacked.
    """
    for name in _SCRUBBED:
        os.environ.pop(name, None)
    os.environ["PYTHONNOUSERSITE"] = "1"
    pycache = root / "pycache"
    if pycache.is_dir():
        sys.pycache_prefix = str(pycache.resolve())
    else:
        sys.dont_write_bytecode = True
    sys.path[:] = [entry for entry in sys.path if _is_standard_library(entry)]
    # Layers are shared: below their real paths the byte code of one serves every package.
    sys.path.append(str((root / "runtime").resolve()))
    site.addsitedir(str((root / "env" / "site-packages").resolve()))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _is_standard_library(entry: str) -> bool:
    parts = Path(entry).parts
    return bool(entry) and not {"site-packages", "dist-packages"} & set(parts)


def _require_utf8() -> None:
    """Files are UTF-8 in every target, whatever the locale of the machine."""
    if sys.flags.utf8_mode or codecs.lookup(locale.getencoding()).name == "utf-8":
        return
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-X", "utf8", *sys.argv])  # noqa: S606


def _require_interpreter(root: Path) -> None:
    """Compiled modules load only into the Python version and machine that they are made for."""
    path = root / "env" / "environment.json"
    try:
        wanted = json.loads(path.read_bytes())
        python, target = str(wanted["python"]), str(wanted["platform"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        _fail(f"{root} holds no package: {path} cannot be read ({error}).")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != python:
        _fail(
            f"The package needs Python {python}, and {sys.executable} is Python {here}. "
            f"Run it with python{python}, or build it again with --python {here}."
        )
    machine = platform.machine().lower()
    if machine not in _MACHINES.get(target, (machine,)):
        _fail(f"The package is built for {target}, and this machine is {machine}.")


def _fail(message: str) -> NoReturn:
    """Ends the process, and tells the supervisor why if there is one."""
    status = os.environ.get("FIELDPOST_STATUS_FD", "")
    if status.isdigit():
        error = {"code": "incompatible_environment", "message": message}
        line = json.dumps({"state": "failed", "error": error, "detail": ""}) + "\n"
        with contextlib.suppress(OSError):
            os.write(int(status), line.encode())
    print(f"fieldpost: {message}", file=sys.stderr)  # noqa: T201 - nothing else is there yet
    raise SystemExit(FAILED)


if __name__ == "__main__":
    main(sys.argv[1:])
