"""What everyone works with: a registry with the base in it, engines, wheels, models.

All of it is real, on this machine, and gone afterwards. It is the tests' own machinery.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.venvs import REPOSITORY
from tests.support import bases, builders, engines, registry

FIELDPOST = str(Path(sys.executable).parent / "fieldpost")
UV = str(Path(sys.executable).parent / "uv")
CACHE = REPOSITORY / ".build" / "bench" / "images"
# The client of Debian's docker.io has BuildKit built in; others want a plugin for it.
_CLIENTS = ("/usr/bin/docker", "docker")
_PIP = "pip==25.0.1"


@dataclass(frozen=True)
class Place:
    """Where the measurements are taken.

    Attributes:
        folder: Temporary.
        registry: Real, and empty but for the base.
        docker: A private daemon's environment.
        containers: buildah's environment, with a store of its own.
        client: The docker client that builds.
        base: The base in the registry, by its digest.
        missing: Name of a peer to the reason why it cannot be measured.
    """

    folder: Path
    registry: registry.DockerRegistry
    docker: Mapping[str, str]
    containers: Mapping[str, str]
    client: str
    base: str
    missing: dict[str, str]

    def clean_registry(self) -> None:
        """A registry that has seen nothing yet but the base."""
        self.registry.stop()
        shutil.rmtree(self.registry.storage)
        shutil.copytree(self.folder / "storage", self.registry.storage)
        self.registry.start()


@contextmanager
def open_place(folder: Path) -> Iterator[Place]:
    """Starts everything; raises `NoBaseError` where no base can be made."""
    with ExitStack() as stack:
        place = registry.DockerRegistry(folder / "registry")
        place.start()
        stack.callback(place.kill)
        missing: dict[str, str] = {}
        docker = _docker(stack, missing)
        containers = stack.enter_context(builders.containers_storage())
        if why := builders.missing("buildah"):
            missing["buildah"] = why
        base = _push_base(bases.base_rootfs(), place, containers)
        client = next((each for each in _CLIENTS if shutil.which(each)), "docker")
        opened = Place(folder, place, docker, containers, client, base, missing)
        for name, environment in (("docker", docker), ("buildah", containers)):
            if name not in missing:
                _run([name, "pull", *_insecure(name), base], environment)
        place.stop()
        shutil.copytree(place.storage, folder / "storage")
        place.start()
        yield opened


def _docker(stack: ExitStack, missing: dict[str, str]) -> Mapping[str, str]:
    try:
        daemon = stack.enter_context(engines.running("docker"))
    except engines.NoEngineError as error:
        missing["docker"] = str(error)
        return {}
    return {**os.environ, "DOCKER_HOST": daemon.engine.host, "DOCKER_BUILDKIT": "1"}


def _push_base(rootfs: Path, place: registry.DockerRegistry, containers: Mapping[str, str]) -> str:
    """Brings the root filesystem to the registry as others would; returns its name by digest."""
    name = f"{place.host}/base"
    _run(["podman", "import", str(rootfs), f"{name}:1"], containers)
    _run(["podman", "push", "--tls-verify=false", f"{name}:1"], containers)
    found = _run(["skopeo", "inspect", "--tls-verify=false", f"docker://{name}:1"], containers)
    return f"{name}@{json.loads(found)['Digest']}"


def _insecure(program: str) -> list[str]:
    return ["--tls-verify=false"] if program == "buildah" else []


def _run(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")
    return done.stdout


def wheels(requirements: str) -> Path:
    """A folder with these locked wheels and with pip's own; kept between runs."""
    folder = CACHE / "wheels"
    lock = folder / "requirements.lock"
    if lock.exists() and lock.read_text() == requirements:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "wanted.txt").write_text(requirements)
    pip = [UV, "tool", "run", "--quiet", "--from", _PIP, "pip", "download", "--quiet"]
    # Those of the lock are the package's, down to the hash: the same files for everyone.
    _run([*pip, "--dest", str(folder), "--no-deps", "-r", str(folder / "wanted.txt")], os.environ)
    _run([*pip, "--dest", str(folder), "--no-deps", _PIP], os.environ)
    next(folder.glob("pip-*.whl")).rename(folder / "pip.zip")
    (folder / "wanted.txt").rename(lock)
    return folder


def install(wheels: Path, folder: Path) -> None:
    """What is in these wheels, as files; nothing is compiled, as in ours."""
    found = sorted(map(str, wheels.glob("*.whl")))
    options = ["--quiet", "--no-deps", "--target", str(folder)]
    _run([UV, "pip", "install", *options, *found], os.environ)


def make_models(folder: Path, count: int, size: int) -> list[Path]:
    """ONNX models of the same size with other weights: one matrix each, of random numbers."""
    _run(
        [sys.executable, "-m", "benchmarks.images.weights", str(folder), str(count), str(size)],
        {**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    return sorted(folder.glob("*.onnx"))


def timed(
    command: list[str], environment: Mapping[str, str], clock: Callable[[], float], folder: Path
) -> tuple[float, Any]:
    """Seconds of a whole command, and the JSON that it prints; its words where it fails."""
    begun = clock()
    done = subprocess.run(
        command, env=dict(environment), cwd=folder, capture_output=True, text=True, check=False
    )
    seconds = clock() - begun
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-1500:]}")
    return seconds, json.loads(done.stdout) if done.stdout.startswith("{") else None
