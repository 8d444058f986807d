"""The peers' environments: each its own, made from a file of pinned versions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PINS = Path(__file__).parent / "peers"
VENVS = REPOSITORY / ".build" / "bench" / "venvs"
_UV = Path(sys.executable).parent / "uv"
_TIMEOUT_S = 1200


class InstallError(Exception):
    """A peer cannot be installed here."""


def python(name: str) -> Path:
    """The interpreter of an environment; the empty name is our own."""
    return VENVS / name / "bin" / "python" if name else Path(sys.executable)


def ensure(name: str) -> None:
    """Installs an environment, unless it is there with the same pins.

    Raises:
        InstallError: It cannot be installed.
    """
    pins = PINS / f"{name}.txt"
    stamp = VENVS / name / "installed.txt"
    if stamp.exists() and stamp.read_text() == pins.read_text():
        return
    VENVS.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--clear", "--python", sys.executable, str(VENVS / name))
    # Only wheels: a peer that has to be built from source would need compilers.
    _uv("pip", "install", "--python", str(python(name)), "--only-binary", ":all:", "-r", str(pins))
    stamp.write_text(pins.read_text())


def _uv(*arguments: str) -> None:
    command = [str(_UV), *arguments, "--quiet"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"uv {arguments[0]}: {error}") from None
    if done.returncode != 0:
        raise InstallError(f"uv {arguments[0]}: {' '.join(done.stderr.split())[:300]}")


def versions(name: str, distributions: tuple[str, ...]) -> dict[str, str]:
    """What is installed of these."""
    code = (
        "import json, sys; from importlib import metadata;"
        "print(json.dumps({name: metadata.version(name) for name in sys.argv[1:]}))"
    )
    command = [str(python(name)), "-c", code, *distributions]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found
