"""The target `local`: supervised processes on this machine."""

from __future__ import annotations

from serve.targets.local.target import LocalTarget

__all__ = ["LocalTarget"]
