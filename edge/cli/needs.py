"""What a command needs that not everybody installs, told before it is missed."""

from __future__ import annotations

from importlib import util
from typing import Final

from scoring.errors import MissingDependencyError

_FLEET: Final = ("cryptography", "paho", "tuf", "zstandard")


def require_fleet() -> None:
    """Raises MissingDependencyError where what fleets need is not installed."""
    missing = [name for name in _FLEET if util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"Fleets need packages that are not installed: {', '.join(missing)}.",
            hint="Install them with: pip install 'fieldpost[fleet]'",
        )
