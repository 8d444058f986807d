"""Installs a lock into a folder, for any platform, and takes away what no server needs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import EnvironmentResolutionError

if TYPE_CHECKING:
    from serve.packaging.lock import Lock
    from serve.packaging.uvtool import UvResult

# Part of the key of cached environment layers: raise it when pruning changes.
PRUNE_VERSION = 1

_DIST_INFO_KEPT = (
    r"(?i)METADATA|WHEEL|entry_points\.txt|top_level\.txt|(LICEN[CS]E|COPYING|NOTICE|AUTHORS).*"
)
# What uv draws before the lines of an error.
_TREE_MARKS = " \u00d7\u251c\u2500\u25b6\u2570\u2502"

# Test suites that packages import nowhere else: tests are dropped only below these top folders,
# because a `tests` folder of an unknown package may be part of its interface.
_TESTS_DROPPED = frozenset(
    {"numpy", "scipy", "pandas", "sklearn", "joblib", "threadpoolctl", "networkx", "skl2onnx"}
)
_HEADER_SUFFIXES = frozenset({".h", ".hpp", ".hh", ".cuh", ".pxd", ".pyx", ".a", ".lib"})


def install_lock(lock: Lock, site_packages: Path, *, work: Path) -> None:
    """Installs the locked wheels below `site_packages` and prunes them.

    Args:
        lock: What to install.
        site_packages: The folder, empty or not there yet.
        work: A folder for temporary files.

    Raises:
        EnvironmentResolutionError: A wheel is neither in uv's cache nor to be fetched, or its
            hash is another one.
    """
    from serve.packaging.uvtool import run_uv_from_cache  # noqa: PLC0415 - plans need none of it

    requirements = work / "requirements.lock"
    requirements.write_text(lock.text)
    site_packages.mkdir(parents=True, exist_ok=True)
    result = run_uv_from_cache(_arguments(lock, requirements, site_packages), folder=work)
    if not result.ok:
        raise _install_error(result)
    prune(site_packages)


def _arguments(lock: Lock, requirements: Path, site_packages: Path) -> list[str]:
    from serve.packaging.uvtool import torch_backend, uv_options  # noqa: PLC0415

    return [
        *("pip", "install", "--require-hashes", "--no-deps", "--quiet"),
        *("--target", str(site_packages), "--link-mode", "hardlink", "--no-compile-bytecode"),
        *lock.target.uv_arguments(),
        *uv_options(lock.options),
        *torch_backend(package.name for package in lock.packages),
        *("-r", str(requirements)),
    ]


def _install_error(result: UvResult) -> EnvironmentResolutionError:
    if result.network_down:
        return EnvironmentResolutionError(
            "A package of the environment is not in uv's cache, and no index can be reached.",
            hint="Connect to the network once, or fill the cache with 'fieldpost env lock'.",
            detail=result.stderr,
        )
    return EnvironmentResolutionError(
        "The locked environment cannot be installed: " + _last_reason(result.stderr),
        hint="Lock the environment again if the index no longer has one of its files.",
        detail=result.stderr,
    )


def _last_reason(stderr: str) -> str:
    lines = [line.strip(_TREE_MARKS) for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "uv gave no reason."


def prune(site_packages: Path) -> None:
    """Takes away what varies between machines or no server reads.

    Kept are the metadata that `importlib.metadata` answers from and every licence.
    """
    (site_packages / ".lock").unlink(missing_ok=True)
    for name in ("bin", "include"):
        shutil.rmtree(site_packages / name, ignore_errors=True)
    for folder, folders, files in os.walk(site_packages):
        here = Path(folder)
        for name in [name for name in folders if _drops_folder(site_packages, here / name)]:
            shutil.rmtree(here / name)
            folders.remove(name)
        for name in files:
            if _drops_file(here / name):
                (here / name).unlink()


def _drops_folder(site_packages: Path, folder: Path) -> bool:
    if folder.name in {"__pycache__", ".pytest_cache"}:
        return True
    top = folder.relative_to(site_packages).parts[0]
    return folder.name == "tests" and top in _TESTS_DROPPED


def _drops_file(file: Path) -> bool:
    if file.parent.name.endswith(".dist-info"):
        return not re.fullmatch(_DIST_INFO_KEPT, file.name)
    return file.suffix in _HEADER_SUFFIXES or file.suffix == ".pyc"
