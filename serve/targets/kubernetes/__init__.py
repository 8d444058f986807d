"""The target `kubernetes`: plain objects on a cluster, owned and understood by it."""

from __future__ import annotations

from typing import Any

from scoring.errors import TargetError

__all__ = ["KubernetesTarget"]


def __getattr__(name: str) -> Any:
    """The target, imported when it is asked for: rendering objects needs none of it."""
    if name == "KubernetesTarget":
        try:
            from serve.targets.kubernetes.target import KubernetesTarget  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise _not_installed(error) from error
        return KubernetesTarget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _not_installed(error: ModuleNotFoundError) -> Exception:
    """What a user without the extra is told; a module of our own that is missing is a defect."""
    if (error.name or "").partition(".")[0] in ("serve", "scoring"):
        return error
    return TargetError(
        f"The target 'kubernetes' needs {error.name}, which is not installed.",
        hint="Install it: pip install 'fieldpost[kubernetes]'.",
    )
