"""Runs uv: the same answer whatever the user's own uv settings, with or without a network."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import EnvironmentResolutionError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

# The user's settings for reaching an index and keeping a cache are honoured; those that would
# change what is resolved (UV_RESOLUTION, UV_PRERELEASE, UV_CONSTRAINT ...) are not passed on.
_PASSED_ON = re.compile(
    r"UV_(INDEX.*|DEFAULT_INDEX|EXTRA_INDEX_URL|FIND_LINKS|CACHE_DIR|NO_CACHE|OFFLINE|NATIVE_TLS"
    r"|SYSTEM_CERTS|INSECURE_HOST|KEYRING_PROVIDER|HTTP_.*|REQUEST_TIMEOUT|CONCURRENT_.*"
    r"|TORCH_BACKEND|CONFIG_FILE|NO_CONFIG)"
)
_NO_NETWORK = re.compile(
    r"dns error|failed to lookup address|error sending request|Connection refused"
    r"|Network is unreachable|tcp connect error|operation timed out|Failed to fetch"
    r"|client error \(Connect\)|not found in the cache|network was disabled"
    r"|network connectivity is disabled",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"\(os error (28|122)\)")  # ENOSPC and EDQUOT, as Rust writes them
_PIP_SETTINGS = (
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", " "),
    ("PIP_EXTRA_INDEX_URL", "UV_INDEX", " "),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS", ","),
)
_TIMEOUT_S = 1800


class UvResult(msgspec.Struct, frozen=True):
    """What uv answered."""

    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Uv did what it was asked."""
        return self.status == 0

    @property
    def network_down(self) -> bool:
        """An index could not be reached, and the cache was not enough."""
        return not self.ok and bool(_NO_NETWORK.search(self.stderr))


def run_uv(arguments: Sequence[str], *, folder: Path) -> UvResult:
    """Runs uv in a folder, once more from its cache alone where the network is down."""
    result = _run(arguments, folder)
    if result.network_down:
        return _run([*arguments, "--offline"], folder)
    return result


def run_uv_from_cache(arguments: Sequence[str], *, folder: Path) -> UvResult:
    """Runs uv from its cache, with the network only where that lacks something.

    For commands whose result is fixed by hashes, so that it cannot matter where bytes come from.
    """
    result = _run([*arguments, "--offline"], folder)
    return result if result.ok else run_uv(arguments, folder=folder)


def index_settings() -> dict[str, str]:
    """What decides which index answers: part of the key of a cached resolution."""
    return {
        key: value
        for key, value in _environment().items()
        if key.startswith(("UV_INDEX", "UV_DEFAULT", "UV_EXTRA", "UV_FIND", "UV_TORCH"))
    }


def uv_options(options: Sequence[str]) -> list[str]:
    """The index options of an environment file, with `${NAME}` replaced as pip does."""
    return [
        re.sub(r"\$\{([A-Z0-9_]+)\}", lambda name: os.environ.get(name[1], name[0]), option)
        for option in options
    ]


def torch_backend(names: Iterable[str]) -> list[str]:
    """Takes torch from its CPU index, unless the user has chosen an index.

    PyPI's torch for Linux brings gigabytes of CUDA that a server on a CPU never loads.
    """
    if index_settings() or not {"torch", "torchvision", "torchaudio"} & set(names):
        return []
    return ["--torch-backend", "cpu"]


def _run(arguments: Sequence[str], folder: Path) -> UvResult:
    import subprocess  # noqa: PLC0415 - most commands run no uv

    import uv  # noqa: PLC0415

    command = [uv.find_uv_bin(), *arguments, "--no-progress", "--color", "never"]
    try:
        done = subprocess.run(  # noqa: S603 - uv's own program with our arguments
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentResolutionError(f"uv cannot be run: {error}.") from error
    if done.returncode and _NO_SPACE.search(done.stderr):
        raise StorageFullError(
            "No space is left to install or resolve the environment.",
            hint="Free space on the disks of the workspace and of uv's cache, and run the command "
            "again.",
            detail=done.stderr,
        )
    return UvResult(status=done.returncode, stdout=done.stdout, stderr=done.stderr)


def _environment() -> dict[str, str]:
    """Pip's settings count where uv has none: uv itself ignores them."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("UV_", "PYTHON", "VIRTUAL_ENV", "CONDA_"))
        or _PASSED_ON.fullmatch(key)
    }
    for theirs, ours, separator in _PIP_SETTINGS:
        if theirs in os.environ and ours not in kept:
            kept[ours] = separator.join(os.environ[theirs].split())
    return kept | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
