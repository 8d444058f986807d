"""A worker's share of the cores: where it runs, and how many threads its libraries start.

Without it every worker of a server would start a thread for each core of the machine, and all of
them would take the cores from each other.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.runtimes.threads import set_share

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

logger = logging.getLogger(__name__)

# What OpenMP (also of torch, xgboost and lightgbm), OpenBLAS, MKL and numexpr look at once, when
# they are loaded.
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)

_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_TOPOLOGY = Path("/sys/devices/system/cpu")


def take_share(
    slot: int = 0,
    count: int = 1,
    *,
    pin: bool = True,
    environment: MutableMapping[str, str] | None = None,
) -> int:
    """Gives this process its share of the cores; call it before a model's libraries are loaded.

    One of several workers runs, with all that it starts, on its own cores from here on.

    Args:
        slot: The worker's place, from 0.
        count: How many workers there are.
        pin: False leaves the choice of the cores to the kernel.
        environment: Gets the number of threads, where its user has set none; the process's own if
            None.

    Returns:
        How many threads may compute at once.
    """
    cores = allowed_cores()
    mine = share(by_neighbourhood(cores), slot, count)
    if pin and len(mine) < len(cores):
        _stay_on(mine)
    threads = thread_share(len(cores), len(mine), count, quota())
    set_share(threads)
    if threads < len(cores):  # else they find out by themselves
        environment = os.environ if environment is None else environment
        for variable in THREAD_VARIABLES:
            if not environment.get(variable):
                environment[variable] = str(threads)
    return threads


def share(cores: Sequence[int], slot: int, count: int) -> list[int]:
    """One worker's cores: no two workers have one in common while there are enough for all.

    With fewer cores than workers each has all: then the kernel spreads them better than we could.
    """
    if len(cores) < count:
        return list(cores)
    return list(cores[slot * len(cores) // count : (slot + 1) * len(cores) // count])


def thread_share(cores: int, mine: int, count: int, quota: float | None) -> int:
    """How many threads a worker may keep busy at once.

    Args:
        cores: How many the process may use.
        mine: How many the worker's share has.
        count: How many workers there are.
        quota: The processor time that all of them get together, in cores; None: unlimited.
    """
    threads = mine if cores >= count else 1
    return max(threads if quota is None else min(threads, int(quota / count)), 1)


def allowed_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def by_neighbourhood(cores: Sequence[int], topology: Path = _TOPOLOGY) -> list[int]:
    """The cores in an order in which those that share a package, and then a core's parts, meet."""

    def place(core: int) -> tuple[int, int, int]:
        folder = topology / f"cpu{core}" / "topology"
        return _number(folder / "physical_package_id"), _number(folder / "core_id"), core

    return sorted(cores, key=place)


def quota(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """The processor time that this process's control group gets, in cores; None: unlimited."""
    limits = []
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += [_v2_limit(folder) for folder in _upwards(groups, path)]
        elif "cpu" in controllers.split(","):
            limits += [_v1_limit(folder) for folder in _upwards(groups / controllers, path)]
            limits += [_v1_limit(folder) for folder in _upwards(groups / "cpu", path)]
    return min((limit for limit in limits if limit is not None), default=None)


def _upwards(mount: Path, path: str) -> list[Path]:
    """The folder of a group and those above it; in a container the mount itself is the group."""
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _v2_limit(folder: Path) -> float | None:
    budget, _, period = next(iter(_lines(folder / "cpu.max")), "").partition(" ")
    return _ratio(_whole(budget), _whole(period))


def _v1_limit(folder: Path) -> float | None:
    return _ratio(_number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us"))


def _ratio(budget: int, period: int) -> float | None:
    return budget / period if budget > 0 and period > 0 else None


def _number(path: Path) -> int:
    return _whole(next(iter(_lines(path)), ""))


def _whole(text: str) -> int:
    """The number that a text is; -1, as where there is no limit, for any other."""
    return int(text) if text.isascii() and text.isdigit() else -1


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("latin-1").splitlines()
    except OSError:
        return []


def _stay_on(cores: Sequence[int]) -> None:
    if not hasattr(os, "sched_setaffinity"):
        return
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        logger.warning("The worker is not kept on its cores: %s", error.strerror)
