"""Tries a model in a process of its own first, where a damaged file may end the process.

XGBoost and LightGBM check little of what they read: a flipped byte can crash them, and with them
the command or the server that loads the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scoring.errors import CorruptModelError, FieldpostError
from scoring.formats.base import Detection

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 300
_CHILD = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from scoring.formats.canary import main; main(*sys.argv[2:])"
)
# What the libraries import where it is there, and a Booster never needs: most of their start.
_UNNEEDED = ("sklearn", "dask", "matplotlib", "graphviz")
_MODULES = {"xgboost": "scoring.formats.xgboost", "lightgbm": "scoring.formats.lightgbm"}


def require_survivable(detection: Detection) -> None:
    """Loads the model in a child process and asks it once.

    An error of the ordinary kind is not reported: it will come again when this process loads it.

    Raises:
        CorruptModelError: The child process crashed, or took longer than `TIMEOUT_S`.
    """
    path = detection.path.resolve()
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), detection.format, str(path)]
    try:
        code = subprocess.run(  # noqa: S603 - our own interpreter and code
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code < 0:
        raise CorruptModelError(
            f"{detection.path} is damaged: {detection.format} crashes over it.",
            hint="Save the model again.",
            where=str(detection.path),
        )


def main(model_format: Literal["xgboost", "lightgbm"], path: str) -> None:
    """Runs in the child: exits with 0, or dies of the signal that the library raises."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.modules.update(dict.fromkeys(_UNNEEDED))  # type: ignore[arg-type] # None: not there
    describe: Callable[[Detection], object] = import_module(_MODULES[model_format]).describe
    with contextlib.suppress(FieldpostError):
        describe(Detection(model_format, model_format, Path(path)))
    os._exit(0)
