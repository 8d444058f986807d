"""The target `edge`: a deployment of the workspace that runs on the devices of a fleet."""

from __future__ import annotations

from typing import Any

__all__ = ["EdgeTarget"]


def __getattr__(name: str) -> Any:
    """The target, imported when it is asked for, so that it can say what it lacks."""
    if name == "EdgeTarget":
        try:
            from edge.target.target import EdgeTarget  # noqa: PLC0415
        except ModuleNotFoundError as error:
            from edge.cli.needs import not_installed  # noqa: PLC0415

            raise not_installed(error, extra="fleet") from error
        return EdgeTarget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
