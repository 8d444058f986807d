"""Packages as containers, by the command line of the engine that is on the device.

A container is a base with Python, the package's unpacked layers mounted into it read-only, and the
worker's contract handed over (`handover`): no layer is on the disk twice, and nothing is copied
when a version changes. The client of the engine stays in the foreground: what it prints is the
module's log, and its end is the container's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from edge.agent.handover import NAME, Handover
from edge.protocol.messages import Module
from scoring.bundle import IMAGE_ROOT
from scoring.errors import DeploymentFailedError

logger = logging.getLogger(__name__)

LAYERS: Final = frozenset({"env", "runtime", "code", "model"})
"""What is mounted; layers of other names are a base's."""

BYTE_CODE: Final = "container-pycache"
"""The folder beside the roots of packages that holds the byte code of containers."""

LABEL: Final = "dev.fieldpost.agent"

_ENGINES: Final = ("docker", "podman")
_ROOT: Final = f"/{IMAGE_ROOT}"
_RUN: Final = "/run/fieldpost"
_ASK_S: Final = 15.0
_LEAVE_S: Final = 60.0
_MAY_WRITE: Final = 0o777
_NOBODY: Final = "65534:65534"
_SETTINGS: Final = {
    "memory": re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,3})?[kmgKMG]?i?[bB]?"),
    "cpus": re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,3})?"),
    "pids": re.compile(r"[0-9]{1,7}"),
    "network": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"),
    "user": re.compile(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)?"),
    "tmp": re.compile(r"[0-9]{1,12}[kmgKMG]?"),
    "base": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,254}"),
}


class Containers:
    """The containers of one agent.

    Args:
        folder: For what containers share with the agent; made where it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
        self._swept = False

    @functools.cached_property
    def _engine(self) -> str:
        return next((name for name in _ENGINES if _answers(name)), "")

    @property
    def there(self) -> bool:
        """Whether an engine is on the device, and answers."""
        if not self._engine:
            self.__dict__.pop("_engine", None)  # it may answer the next time
            return False
        return True

    def launch(self, run: Module, root: Path, env: Mapping[str, str]) -> ContainerLaunch:
        """What starts a package as a container.

        Args:
            run: How it is to run.
            root: Where it is unpacked.
            env: The worker's environment.

        Raises:
            DeploymentFailedError: No engine answers, or a setting is not understood.
        """
        options = limits(run.settings)
        base = run.settings.get("base", "") or default_base(root)
        if not self.there:
            raise DeploymentFailedError(
                "No container engine answers on this device.",
                hint='Install Docker or Podman, or run the package as a process (run="process").',
            )
        self._sweep()
        name = f"fieldpost-{self._owner[:8]}-{secrets.token_hex(6)}"
        shared = self._folder / name
        command = [
            *(self._engine, "run", "--rm", "--name", name, "--label", f"{LABEL}={self._owner}"),
            *options,
            *mounts(root, shared),
            *("--entrypoint", "python3", base),
            *("-I", "-S", "-X", "utf8", "-c", _source(), f"{_RUN}/{NAME}", _ROOT),
        ]
        return ContainerLaunch(self._engine, name, command, shared, env)

    def _sweep(self) -> None:
        """Sends away, beside what else is done, what an agent before this one has left."""
        if self._swept:
            return
        self._swept = True
        shutil.rmtree(self._folder, ignore_errors=True)
        found = _ask(
            self._engine, "ps", "--all", "--quiet", "--filter", f"label={LABEL}={self._owner}"
        )
        left = found.split()
        if left:
            threading.Thread(
                target=_send_away, args=(self._engine, left), name="sweep", daemon=True
            ).start()


class ContainerLaunch:
    """One container, to be begun.

    Args:
        engine: The command of the engine.
        name: The container's.
        command: What starts it.
        shared: The folder that it shares with the agent; made, and removed.
        env: The worker's environment.
    """

    def __init__(
        self, engine: str, name: str, command: Sequence[str], shared: Path, env: Mapping[str, str]
    ) -> None:
        self._engine, self._name, self._command = engine, name, command
        self._shared, self._env = shared, env
        self._handover: Handover | None = None

    def begin(self, contract: Mapping[str, int], output: int) -> subprocess.Popen[bytes]:
        """See `Launch`."""
        self._handover = Handover(self._shared, contract, self._env)
        try:
            return subprocess.Popen(  # noqa: S603 - no shell, and settings are checked
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError:
            self._handover.close()
            raise

    def kill(self) -> None:
        """See `Launch`: the engine holds the container, not the process."""
        _ask(self._engine, "kill", self._name)

    def over(self) -> None:
        """See `Launch`: the client may have ended before its container."""
        if self._handover is not None:
            self._handover.close()
        _ask(self._engine, "rm", "--force", self._name)


def limits(settings: Mapping[str, str]) -> list[str]:
    """Options of the container, from a module's settings: no more rights than it needs.

    Raises:
        DeploymentFailedError: A setting is not understood.
    """
    found = {name: settings[name] for name in _SETTINGS if name in settings}
    for name, text in found.items():
        if not _SETTINGS[name].fullmatch(text):
            raise DeploymentFailedError(
                f"The setting {name} is {text!r}, which no container can have.",
                hint="Write memory=512m, cpus=1.5, pids=256, network=none, base=python:3.11-slim.",
            )
    options = [
        *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--pids-limit", found.get("pids", "1024"), "--user", found.get("user", _NOBODY)),
        *("--tmpfs", f"/tmp:rw,nosuid,nodev,mode=1777,size={found.get('tmp', '256m')}"),  # noqa: S108
        *("--log-driver", "none"),  # what is printed goes to the module's log
    ]
    if "memory" in found:  # without swap, in which answers would take seconds
        options += ["--memory", found["memory"], "--memory-swap", found["memory"]]
    for name in ("cpus", "network"):
        options += [f"--{name}", found[name]] if name in found else []
    return options


def mounts(root: Path, shared: Path) -> list[str]:
    """The package's layers, and the folder that is shared with the agent."""
    options = []
    for name in sorted(LAYERS):
        if (root / name).is_dir():
            options += ["--volume", f"{(root / name).resolve()}:{_ROOT}/{name}:ro"]
    return [
        *options,
        *("--volume", f"{byte_code(root)}:{_ROOT}/pycache"),
        *("--volume", f"{shared}:{_RUN}:ro"),
    ]


def byte_code(root: Path) -> Path:
    """Where the containers of one package keep byte code: others could not trust it."""
    folder = root.parent.parent / BYTE_CODE / root.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(_MAY_WRITE)  # for any user of a container, below the agent's own folder
    except OSError as error:
        raise DeploymentFailedError(f"{folder} cannot be made: {error.strerror}.") from error
    return folder


def default_base(root: Path) -> str:
    """The base of the Python version that the package is built for.

    Raises:
        DeploymentFailedError: It is no package.
    """
    try:
        told = json.loads((root / "env" / "environment.json").read_bytes())
        return f"docker.io/library/python:{told['python']}-slim"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentFailedError(f"{root} holds no package: {error}.") from error


def _answers(engine: str) -> bool:
    return shutil.which(engine) is not None and bool(
        _ask(engine, "ps", "--quiet", "--last", "1", ok="yes")
    )


def _send_away(engine: str, containers: Sequence[str]) -> None:
    """They have lost their agent and drain by themselves; those that do not are ended."""
    _ask(engine, "stop", "--time", str(int(_LEAVE_S)), *containers, seconds=_LEAVE_S + _ASK_S)
    _ask(engine, "rm", "--force", *containers)


def _ask(engine: str, *arguments: str, seconds: float = _ASK_S, ok: str = "") -> str:
    """What the engine's client prints, or `ok`; empty where it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            [engine, *arguments], capture_output=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s does not answer: %s", engine, error)
        return ""
    if done.returncode:
        logger.debug("%s %s: %s", engine, arguments[0], done.stderr[-500:])
        return ""
    return ok or done.stdout.decode(errors="replace")


@functools.cache
def _source() -> str:
    return resources.files(__package__).joinpath("incontainer.py").read_text("utf-8")
