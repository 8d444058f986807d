"""What a command needs that not everybody installs, told before it is missed."""

from __future__ import annotations

from importlib import util
from typing import Final

from scoring.errors import MissingDependencyError

_FLEET: Final = ("cryptography", "paho", "tuf", "zstandard")
_OURS: Final = ("edge", "scoring", "serve")


def require_fleet() -> None:
    """Raises MissingDependencyError where what fleets need is not installed."""
    missing = [name for name in _FLEET if util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"Fleets need packages that are not installed: {', '.join(missing)}.",
            hint="Install them with: pip install 'fieldpost[fleet]'",
        )


def not_installed(error: ModuleNotFoundError, *, extra: str) -> Exception:
    """What to raise for an import that failed.

    Args:
        error: The import's own error.
        extra: The extra of ours that brings what is missing.

    Returns:
        An error that names the package and the extra; a module of our own that is missing is a
        defect, and stays what it is.
    """
    name = (error.name or "").partition(".")[0]
    if not name or name in _OURS:
        return error
    return MissingDependencyError(
        f"Fleets need the package {name}, which is not installed.",
        hint=f"Install it with: pip install 'fieldpost[{extra}]'",
        where=name,
    )
