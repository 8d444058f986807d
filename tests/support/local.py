"""A workspace with a local target whose packages are folders for `tiny_worker.py`.

Everything but the package is real: registry, supervisor, sockets, processes, signals.
`python -m tests.support.local FOLDER NAME BEHAVIOUR [KEY=VALUE ...]` deploys as a command would.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from serve.registry import Registry
from serve.targets.base import DeployRequest, DeployResult, Status, TargetContext
from serve.targets.local import LocalTarget, processes
from serve.targets.local.state import SavedState, read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve.registry.records import Deployment

WORKER = Path(__file__).with_name("tiny_worker.py")


class TinyTarget(LocalTarget):
    """The local target with folders in place of packages."""

    def _unpack(self, package: str) -> Path:
        return self._context.cache_dir / package.partition(":")[2]

    def _command(self, root: Path) -> list[str]:
        return [sys.executable, "-I", "-S", str(WORKER), str(root)]


class Site:
    """A workspace whose processes are ended with it."""

    target_type: ClassVar[type[LocalTarget]] = TinyTarget

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(folder)
        self.run_dir = folder / "run"
        context = TargetContext(
            location=str(folder),
            blobs=self.registry.blobs,
            cache_dir=folder / "cache",
            run_dir=self.run_dir,
        )
        self.target = self.target_type(context)

    def package(self, behaviour: dict[str, Any]) -> str:
        """The digest of a package whose workers behave so."""
        text = json.dumps(behaviour, sort_keys=True)
        record = self.registry.packages.register(
            text.encode(), [], model=None, model_version=None, environment=None, platform="any"
        )
        root = self.folder / "cache" / record.digest.partition(":")[2]
        if not root.exists():
            self.lay_out(root, behaviour)
        return record.digest

    def lay_out(self, root: Path, behaviour: dict[str, Any]) -> None:
        """Writes what the package's root holds."""
        root.mkdir(parents=True)
        (root / "behaviour.json").write_text(json.dumps(behaviour))

    def request(
        self, name: str, behaviour: dict[str, Any], settings: dict[str, str] | None = None
    ) -> DeployRequest:
        """A new revision, pending in the registry."""
        revision = self.registry.deployments.create_revision(
            name, target="local", package=self.package(behaviour), settings=settings or {}
        )
        return DeployRequest(
            name=name,
            revision=revision.number,
            package=revision.package,
            settings=dict(revision.settings),
            address=self.get(name).address,
        )

    def deploy(
        self,
        name: str,
        behaviour: dict[str, Any],
        settings: dict[str, str] | None = None,
        progress: Callable[[str], None] = lambda _text: None,
    ) -> DeployResult:
        """What the workspace does for `fieldpost deploy`."""
        return self.target.deploy(self.request(name, behaviour, settings), progress)

    def get(self, name: str) -> Deployment:
        return self.registry.deployments.get(name)

    def status(self, name: str) -> Status:
        return self.target.status(self.get(name))

    def stop(self, name: str) -> None:
        self.registry.deployments.stop(name)
        self.target.stop(self.get(name))

    def start(self, name: str) -> DeployResult:
        return self.target.start(self.get(name))

    def saved(self, name: str) -> SavedState:
        state = read_state(self.run_dir / name)
        assert state is not None
        return state

    def log(self, name: str) -> str:
        return "\n".join(self.target.logs(self.get(name)))

    def close(self) -> None:
        """Ends whatever still runs, by pid."""
        for folder in self.run_dir.iterdir() if self.run_dir.exists() else ():
            state = read_state(folder)
            if state is not None:
                for process in (state.supervisor, *state.workers):
                    processes.end(process, 0)
        self.registry.close()


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A workspace in this folder, without processes afterwards."""
    opened = Site(folder)
    try:
        yield opened
    finally:
        opened.close()


def get(url: str, path: str = "/", timeout_s: float = 10.0) -> str:
    """The body of one request over a connection of its own; raises for all but 200."""
    status, body = exchange(url, path, timeout_s)
    assert status == 200, body
    return body


def exchange(url: str, path: str = "/", timeout_s: float = 10.0) -> tuple[int, str]:
    """Status and body of one request over a connection of its own."""
    parts = urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def eventually(condition: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """Waits until a condition holds, and returns what it returned."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port that is taken within the block, and free before and after."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)


def main() -> None:
    folder, name, behaviour, *settings = sys.argv[1:]
    site_ = Site(Path(folder))
    pairs = dict(item.split("=", 1) for item in settings)
    result = site_.deploy(name, json.loads(behaviour), pairs, lambda text: print(text, flush=True))
    print(result.url, flush=True)


if __name__ == "__main__":
    main()
