"""A real registry (Debian's `docker-registry`) for tests: on a free port, restartable."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BINARY = "docker-registry"
_START_S = 30.0


def is_installed() -> bool:
    """Whether the registry is there."""
    return shutil.which(BINARY) is not None


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class DockerRegistry:
    """One registry: `start` and `kill` it as often as a test likes, on the same storage.

    Attributes:
        folder: Its storage, settings and log.
        users: Name to password; with any, it asks for a login.
        deletes: Whether it lets manifests and blobs be deleted.
        certificate: A certificate and its key: it then speaks TLS.
        upstream: The URL of another registry that it mirrors.
    """

    folder: Path
    users: dict[str, str] = field(default_factory=dict, repr=False)
    deletes: bool = True
    certificate: tuple[Path, Path] | None = None
    upstream: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`: what references begin with."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self.certificate else 'http'}://{self.host}"

    @property
    def storage(self) -> Path:
        """Where its bytes are."""
        return self.folder / "storage"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "config.yml"
        settings.write_text(self._settings())
        with (self.folder / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", str(settings)],
                stdout=log,
                stderr=log,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in peace."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Lets it hang: connections are taken and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "registry.log").read_text(errors="replace")

    def blobs(self) -> dict[str, int]:
        """Digest to size of all blobs that it holds."""
        folder = self.storage / "docker" / "registry" / "v2" / "blobs" / "sha256"
        found = folder.glob("*/*/data")
        return {f"sha256:{path.parent.name}": path.stat().st_size for path in found}

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def _answers(self) -> bool:
        if self.certificate:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        try:
            with urlopen(f"{self.url}/v2/", timeout=2):
                return True
        except HTTPError as error:
            error.close()
            return error.code == 401
        except (URLError, OSError):
            return False

    def _settings(self) -> str:
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: false}}",
            "storage:",
            f"  filesystem: {{rootdirectory: '{self.storage}'}}",
            f"  delete: {{enabled: {str(self.deletes).lower()}}}",
            f"http: {{addr: '127.0.0.1:{self.port}', secret: 'kept'{self._tls()}}}",
        ]
        if self.users:
            lines.append(f"auth: {{htpasswd: {{realm: tests, path: '{self._write_users()}'}}}}")
        if self.upstream:
            lines.append(f"proxy: {{remoteurl: '{self.upstream}'}}")
        return "\n".join([*lines, ""])

    def _tls(self) -> str:
        if self.certificate is None:
            return ""
        certificate, key = self.certificate
        return f", tls: {{certificate: '{certificate}', key: '{key}'}}"

    def _write_users(self) -> Path:
        path = self.folder / "htpasswd"
        for number, (name, password) in enumerate(self.users.items()):
            create = ["-c"] if number == 0 else []
            subprocess.run(
                ["htpasswd", *create, "-iBC", "4", str(path), name],
                input=password.encode(),
                check=True,
                capture_output=True,
            )
        return path


@contextmanager
def running(folder: Path, **given: object) -> Iterator[DockerRegistry]:
    """A registry that runs until the end of the block."""
    registry = DockerRegistry(folder, **given)  # type: ignore[arg-type]
    registry.start()
    try:
        yield registry
    finally:
        registry.kill()
