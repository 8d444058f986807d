"""The target `kubernetes`: plain objects on a cluster, owned and understood by it."""

from __future__ import annotations

from typing import Any

__all__ = ["KubernetesTarget"]


def __getattr__(name: str) -> Any:
    """The target, imported when it is asked for: rendering objects needs none of it."""
    if name == "KubernetesTarget":
        from serve.targets.kubernetes.target import KubernetesTarget  # noqa: PLC0415

        return KubernetesTarget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
