"""The registry: records in a database, bytes in a content-addressed store.

Bottom up: `names`, `records`, `location` and `files` need no database; `blobs` stores bytes;
`statements` and `tables` are SQL as text; `sqlite` and `postgresql` speak it through their drivers,
of which `database` imports the one that is needed; `models`, `environments`, `packages`,
`referrers`, `settings`, `deployments` and `endpoints` are the collections; `registry` opens them
all, and is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve.registry.registry import Registry

__all__ = ["Registry"]


def __getattr__(name: str) -> object:
    if name == "Registry":
        from serve.registry.registry import Registry  # noqa: PLC0415

        return Registry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
