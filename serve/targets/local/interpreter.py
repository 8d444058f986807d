"""The command line that runs a package: an interpreter of the package's own Python version."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import PackagingError, TargetError

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT_FILE = "env/environment.json"

# What a worker gets of this process's environment. All else would make answers depend on who
# deployed; `--set env.NAME=value` adds what a script needs.
_PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR"),
    *("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)


def worker_command(root: Path) -> list[str]:
    """The command that runs the package below `root`, with nothing of the host importable.

    Raises:
        TargetError: No interpreter of the package's Python version is installed.
        PackagingError: The root holds no package.
    """
    boot = root / "runtime" / "scoring" / "boot.py"
    return [find_interpreter(package_python(root)), "-I", "-S", "-X", "utf8", str(boot), str(root)]


def package_python(root: Path) -> str:
    """The Python version that the package is made for, `3.11`."""
    path = root / ENVIRONMENT_FILE
    try:
        return str(msgspec.json.decode(path.read_bytes(), type=dict[str, Any])["python"])
    except (OSError, msgspec.DecodeError, KeyError) as error:
        raise PackagingError(
            f"{root} holds no package: {ENVIRONMENT_FILE} cannot be read ({error}).",
            hint="Build the package again.",
        ) from error


@cache
def find_interpreter(version: str) -> str:
    """An interpreter of this minor version: the running one, else one that uv finds.

    Raises:
        TargetError: There is none; the hint says how to install one.
    """
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = _ask_uv(version)
    if not found:
        raise TargetError(
            f"The package needs Python {version}, and this machine has none.",
            hint=f"Install it with 'uv python install {version}', or build the package again "
            f"with --python {sys.version_info.major}.{sys.version_info.minor}.",
        )
    return found


def base_environment() -> dict[str, str]:
    """The environment that every worker starts with; the locale is that of the images."""
    return {"LANG": "C.UTF-8"} | {name: os.environ[name] for name in _PASSED if name in os.environ}


def _ask_uv(version: str) -> str:
    import uv  # noqa: PLC0415 - only where another version is needed

    command = [uv.find_uv_bin(), "python", "find", "--no-project", "--no-python-downloads", version]
    try:
        run = subprocess.run(  # noqa: S603 - our own arguments
            command, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
