"""The target `local`: supervised processes on this machine.

`LocalTarget` is imported when it is first asked for: the supervisor, which lives in this package
too, needs nothing of packaging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve.targets.local.target import LocalTarget

__all__ = ["LocalTarget"]


def __getattr__(name: str) -> object:
    if name == "LocalTarget":
        from serve.targets.local.target import LocalTarget  # noqa: PLC0415

        return LocalTarget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
