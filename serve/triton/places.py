"""Which names mean something of Triton's. Nothing is imported for it: every command asks."""

from __future__ import annotations

from pathlib import Path

PREFIX = "triton:"
CONFIG = "config.pbtxt"


def is_triton(source: str | Path) -> bool:
    """Whether a name means a model of a Triton repository: `triton:PATH`, or a model's folder."""
    return str(source).startswith(PREFIX) or (Path(source) / CONFIG).is_file()


def is_triton_place(to: str, kind: str | None) -> bool:
    """Whether a destination asks for a repository: `triton:DIR`."""
    return (kind or to.partition(":")[0]) == "triton"
