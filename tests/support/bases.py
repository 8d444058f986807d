"""A root filesystem that images stand on: made once per machine, shared by all test processes.

`python -m tests.support.bases` makes it, or says why not, and prints its path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "bookworm"
# What a package needs below itself: Python's standard library whole (asyncio, ssl and ctypes are
# not in the minimal one), C++ for onnxruntime, and authorities for scripts that call out.
PACKAGES = ("ca-certificates", "libpython3.11-stdlib", "libstdc++6", "python3-minimal")
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_EPOCH = "1735689600"  # the same archive on every machine, as far as the mirror allows
_TIMEOUT_S = 600


class NoBaseError(Exception):
    """No root filesystem can be made here; the sentence says why."""


def base_rootfs(*more: str) -> Path:
    """A tar archive of Debian with Python 3.11, from the cache or made now.

    Args:
        more: Packages of Debian beside those that every base has.

    Raises:
        NoBaseError: What makes it is not installed, not allowed, or finds no mirror.
    """
    folder, packages = cache_folder(), (*PACKAGES, *more)
    key = _key(packages)
    path = folder / f"{key}.tar"
    if path.exists():
        return path
    _require_tools()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():  # another process may have been faster
            _make(path, packages)
    return path


def cache_folder() -> Path:
    """Outside of the checkout, so that a fresh clone finds it too."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "fieldpost-tests" / "bases"


def _key(packages: tuple[str, ...]) -> str:
    machine = os.uname().machine
    parts = "\n".join([SUITE, machine, *packages, *EXCLUDED, _EPOCH])
    return f"{SUITE}-{machine}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def _require_tools() -> None:
    if shutil.which("mmdebstrap") is None:
        raise NoBaseError("mmdebstrap is not installed")
    if os.geteuid() != 0:
        raise NoBaseError("mmdebstrap needs root here")


def _make(path: Path, packages: tuple[str, ...]) -> None:
    """Debian's smallest system with these packages, under its final name when it is whole."""
    work = path.with_suffix(".new.tar")
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    try:
        done = subprocess.run(
            [*command, SUITE, str(work)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=os.environ | {"SOURCE_DATE_EPOCH": _EPOCH},
            check=False,
        )
        if done.returncode != 0:
            raise NoBaseError(f"mmdebstrap failed: {_last_line(done.stderr)}")
        work.rename(path)
    except subprocess.TimeoutExpired:
        raise NoBaseError(f"mmdebstrap took more than {_TIMEOUT_S} s") from None
    finally:
        work.unlink(missing_ok=True)


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it says nothing")


if __name__ == "__main__":
    try:
        print(base_rootfs())
    except NoBaseError as error:
        sys.exit(str(error))
