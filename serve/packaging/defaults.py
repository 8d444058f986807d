"""Default environments: locks that ship inside the distribution.

A model that is compiled to ONNX, and a script that brings no environment, get one of these, so that
no resolution happens when their packages are built. They are made anew for a release, by

    python -m serve.packaging.defaults

which resolves them as of the release's date and writes `locks/*.txt`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import NotFoundError
from serve.packaging.lock import Lock
from serve.packaging.platforms import PLATFORMS, PYTHONS, Target
from serve.packaging.release import RELEASE_DATE

if TYPE_CHECKING:
    from scoring.bundle import RuntimeName

RUNTIMES: tuple[RuntimeName, ...] = ("onnx", "script")


def default_lock(runtime: RuntimeName, target: Target) -> Lock:
    """The shipped lock of a runtime.

    Args:
        runtime: `onnx` or `script`; other runtimes depend on the version of their framework.
        target: Platform and Python version.

    Raises:
        NotFoundError: None is shipped for that runtime or target.
    """
    resource = _resource(runtime, target)
    if not resource.is_file():
        raise NotFoundError(
            f"No default environment ships for {runtime} on {target.platform} with "
            f"Python {target.python}.",
            hint=f"Use Python {', '.join(PYTHONS)}, or register an environment and give it "
            "with --env.",
        )
    text = "".join(
        line
        for line in resource.read_text(encoding="utf-8").splitlines(keepends=True)
        if not line.startswith("#")
    )
    return Lock(text=text, target=target, exclude_newer=RELEASE_DATE)


def has_default(runtime: RuntimeName, target: Target) -> bool:
    """Whether a lock ships for a runtime on a platform and Python version."""
    return _resource(runtime, target).is_file()


def _resource(runtime: RuntimeName, target: Target) -> Path:
    return Path(__file__).parent / "locks" / _file_name(runtime, target)


def _file_name(runtime: RuntimeName, target: Target) -> str:
    return f"{runtime}-py{target.python}-{target.platform.replace('/', '-')}.txt"


def write_locks(folder: Path) -> list[Path]:
    """Resolves every default environment anew and writes it; returns the files."""
    from serve.packaging.needs import default_requirements  # noqa: PLC0415 - for releases only
    from serve.packaging.resolve import lock  # noqa: PLC0415
    from serve.packaging.sources import EnvironmentSource  # noqa: PLC0415

    written = []
    for runtime in RUNTIMES:
        for python in PYTHONS:
            for platform in PLATFORMS:
                target = Target(platform=platform, python=python)
                source = EnvironmentSource(kind="requirements", path="default environment")
                found = lock(source, target, extra_requirements=default_requirements(runtime))
                head = f"# Default environment for {runtime} as of {RELEASE_DATE}.\n"
                path = folder / _file_name(runtime, target)
                path.write_text(head + found.text, encoding="utf-8")
                written.append(path)
    return written


if __name__ == "__main__":
    for file in write_locks(Path(__file__).parent / "locks"):
        sys.stdout.write(f"{file.name}\n")
