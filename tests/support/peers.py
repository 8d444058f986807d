"""Other people's software in an environment of its own, to be run beside ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_BUILD = Path(__file__).parents[2] / ".build"


def python_with(name: str, *packages: str) -> Path:
    """The Python of an environment that has some packages, installed once for all runs.

    Skips the test where they cannot be had.

    Args:
        name: Of the environment's folder below `.build`.
        packages: As pip names them, with their versions.
    """
    folder = _BUILD / name / "venv"
    python, marker = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(packages)
    if marker.is_file() and marker.read_text("utf-8") == wanted:
        return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if uv is None:
        pytest.skip(f"{packages[0]} is not installed: there is no uv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *packages],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
        if done.returncode:
            pytest.skip(f"{packages[0]} cannot be installed: {done.stderr[-300:]}")
    marker.write_text(wanted, "utf-8")
    return python
