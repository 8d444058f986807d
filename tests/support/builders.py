"""Builders of images, each with a store of its own, called as users call them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.engines import RunningEngine, _unmount_below
from tests.support.local import eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STORAGE = '[storage]\ndriver = "overlay"\ngraphroot = "{folder}/data"\nrunroot = "{folder}/run"\n'
_CONTAINERS = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
"""
# As strict as containers are run by people who care: nothing of the image needs more.
_STRICT = (
    *("--network", "host", "--read-only", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
)


@dataclass(frozen=True)
class Builder:
    """A builder, and the program that runs what it builds.

    Attributes:
        name: As `--builder` has it.
        engine: The command line that runs and inspects its images.
        environment: With what it is called.
    """

    name: str
    engine: str
    environment: Mapping[str, str]

    def call(self, *arguments: str) -> str:
        """What the engine prints; an assertion where it fails."""
        done = subprocess.run(
            [self.engine, *arguments],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def build(self, folder: Path, tag: str, *arguments: str) -> str:
        """Builds a Dockerfile's folder, and returns the builder's output."""
        done = subprocess.run(
            [self.name, "build", "--tag", tag, *arguments, str(folder)],
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def inspect(self, image: str) -> dict[str, Any]:
        """What the engine knows of an image."""
        documents: list[dict[str, Any]] = json.loads(self.call("image", "inspect", image))
        return documents[0]

    @contextlib.contextmanager
    def running(self, image: str, *arguments: str, command: tuple[str, ...] = ()) -> Iterator[int]:
        """A container of an image, on a port of the host; strict, and removed afterwards."""
        name = f"fp-{uuid.uuid4().hex[:12]}"
        with free_port() as port:
            pass
        told = (
            "--env",
            "FIELDPOST_SERVER_HOST=127.0.0.1",
            "--env",
            f"FIELDPOST_SERVER_PORT={port}",
        )
        words = [word.format(port=port) for word in (*arguments, image, *command)]
        self.call("run", "--detach", "--name", name, *_STRICT, *told, *words)
        try:
            eventually(lambda: self._lives(name) and is_ready(port), timeout_s=60)
            yield port
        finally:
            self.call("rm", "--force", name)

    def _lives(self, name: str) -> bool:
        state = json.loads(self.call("container", "inspect", name))[0]["State"]
        assert state["Running"] or not state.get("ExitCode"), self._logs(name)
        return True

    def _logs(self, name: str) -> str:
        done = subprocess.run(
            [self.engine, "logs", name],
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout


def is_ready(port: int) -> bool:
    """Whether a server is ready to answer."""
    for path in ("/health/ready", "/v2/health/ready"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
    return False


def docker(engine: RunningEngine) -> Builder:
    """`docker build` of a private daemon."""
    environment = {**os.environ, "DOCKER_HOST": engine.host, "DOCKER_BUILDKIT": "0"}
    return Builder("docker", "docker", environment)


@contextlib.contextmanager
def containers_storage() -> Iterator[dict[str, str]]:
    """The environment of buildah and podman with a store of their own, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fp-store-", dir="/tmp"))
    (folder / "storage.conf").write_text(_STORAGE.format(folder=folder))
    (folder / "containers.conf").write_text(_CONTAINERS)
    environment = {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "TMPDIR": str(folder),
    }
    environment.pop("CONTAINER_HOST", None)
    try:
        yield environment
    finally:
        _unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


def missing(name: str) -> str:
    """Why a builder cannot be used here; empty where it can."""
    programs = {"buildah": ("buildah", "podman"), "podman": ("podman",)}.get(name, (name,))
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return "" if os.geteuid() == 0 else f"{name} with a store of its own needs root here"
