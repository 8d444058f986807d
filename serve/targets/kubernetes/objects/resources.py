"""What a pod is promised and may take: derived from the package, unless it is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.targets.kubernetes.quantities import mebibytes, parse

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable, PackageFacts
    from serve.targets.kubernetes.objects.meta import Object

_MIB = 1 << 20
_SERVER = 96 * _MIB
# Of an environment on disk about a third is code and tables that imports bring into memory.
_ENVIRONMENT_PART = 3
# A model's file, what the runtime makes of it, and what a run needs beside.
_MODEL_TIMES = 3
_STEP = 64 * _MIB
_LEAST = 192 * _MIB
_HEADROOM = 256 * _MIB


def resources(of: Deployable) -> Object:
    """Requests and limits of the server's container."""
    settings = of.settings
    promised = settings.memory or mebibytes(memory_bytes(of.package) * settings.workers)
    limits = {"memory": settings.memory_limit or _limit(promised)}
    if settings.memory is None and settings.memory_limit:
        promised = _lesser(promised, settings.memory_limit)
    requests = {"cpu": settings.cpu, "memory": promised}
    if settings.cpu_limit:
        limits["cpu"] = settings.cpu_limit
    if settings.gpus:
        requests[settings.gpu_resource] = limits[settings.gpu_resource] = str(settings.gpus)
    return {"requests": dict(sorted(requests.items())), "limits": dict(sorted(limits.items()))}


def memory_bytes(package: PackageFacts) -> int:
    """An estimate of what one worker of the package holds when it answers."""
    needed = _SERVER + package.environment_bytes // _ENVIRONMENT_PART
    needed += package.model_bytes * _MODEL_TIMES
    return max(-(-needed // _STEP) * _STEP, _LEAST)


def _limit(promised: str) -> str:
    """Requests bring bodies, and what is made of them."""
    count = int(parse("memory", promised))
    return mebibytes(max(2 * count, count + _HEADROOM))


def _lesser(one: str, other: str) -> str:
    return min((one, other), key=lambda text: parse("memory", text))
