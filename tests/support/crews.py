"""A workspace that deploys to a container engine, with packages whose answers everyone knows."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from serve import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.registry.records import Package
    from serve.workspace.deployments import DeploymentHandle, DeploymentView
    from tests.support.engines import RunningEngine

SCRIPT = """
import os, sys, time
hoard = []

def init():
    {init}

def run(data):
    if "exit" in data:
        os._exit(5)
    if "hog" in data:
        hoard.append(b"x" * (1 << 30))
    if "slow" in data:
        time.sleep(2)
    if "say" in data:
        print("said", data)
    return {answer}
"""


class Yard:
    """A workspace, an engine and a base.

    Args:
        folder: Of the workspace and of scripts.
        engine: Where deployments go.
        base: As `--set base=` names it.
        workspace: One that is there already; a new one in the folder by default.
    """

    def __init__(
        self, folder: Path, engine: RunningEngine, base: str, workspace: Workspace | None = None
    ) -> None:
        self.folder = folder
        self.engine = engine
        self.base = base
        self.workspace = workspace or Workspace(folder / "workspace")
        self._packages: dict[tuple[object, str], Package] = {}

    def package(self, answer: object, init: str = "pass") -> Package:
        """A script that answers so, and does this at its start."""
        if (answer, init) not in self._packages:
            script = self.folder / "score.py"
            script.write_text(SCRIPT.format(answer=repr(answer), init=init))
            self._packages[answer, init] = self.workspace.packages.build(script=script)
        return self._packages[answer, init]

    def deploy(
        self,
        name: str,
        package: Package,
        progress: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> DeploymentHandle:
        """As `fieldpost deploy` does; `env__NAME=…` stands for `env.NAME`."""
        given = {"base": self.base, "engine": self.engine.host, **settings}
        texts = {
            key.replace("__", "."): str(text) for key, text in given.items() if text is not None
        }
        return self.workspace.deploy(
            name, package, target=self.engine.kind, settings=texts, progress=progress
        )

    def view(self, name: str) -> DeploymentView:
        return self.workspace.deployments.get(name)

    def containers(self, name: str, role: str = "", *, every: bool = False) -> list[str]:
        """The IDs of a deployment's containers."""
        labels = [f"dev.fieldpost.deployment={name}"]
        labels += [f"dev.fieldpost.role={role}"] if role else []
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        return self.engine.run("ps", "-q", "--no-trunc", *(["-a"] * every), *filters).split()

    def inspect(self, name: str, role: str) -> dict[str, Any]:
        """What the engine's own API says of a deployment's container."""
        (container,) = self.containers(name, role)
        found = self.engine.ask(f"/containers/{container}/json")
        assert isinstance(found, dict)
        return found

    def remove(self, name: str) -> None:
        """Stops and deletes a deployment."""
        with contextlib.suppress(Exception):
            self.workspace.deployments.stop(name)
            self.workspace.deployments.delete(name)


class Clients:
    """Clients that ask for a page again and again: half of them over one connection each."""

    def __init__(self, url: str, count: int = 4) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._host, self._port = parts.hostname, parts.port
        self.answers: Counter[tuple[int, bytes]] = Counter()
        self.errors: list[str] = []
        self.slowest_s = 0.0
        self._ended = False
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for thread in self._threads:
            thread.join(30)

    def seen(self, body: bytes) -> bool:
        """Whether anyone was answered so."""
        return self.answers[200, body] > 0

    def _run(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._ended:
            connection = connection or http.client.HTTPConnection(
                self._host, self._port, timeout=20
            )
            began = time.monotonic()
            try:
                connection.request("POST", "/score", b"{}", {"content-type": "application/json"})
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection.close()
                connection = None
                continue
            with self._lock:
                self.answers[response.status, body] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if not keep or response.getheader("connection") == "close":
                connection.close()
                connection = None
        if connection is not None:
            connection.close()
