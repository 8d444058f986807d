"""A real MQTT broker (Debian's mosquitto) for tests: on a free port, restartable.

Plain by default. `users` and `acl` ask for a login, `certificates` for TLS with certificates of
clients; with `persistent` it has sessions and retained messages on its disk. `settings` adds lines
of any kind, `config` replaces everything (with what `fieldpost fleet broker-config` writes, say).
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_START_S = 20.0


def binary() -> str | None:
    """Where mosquitto is; distributions put it where only root looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def require() -> None:
    """Skips a test by name where mosquitto is not installed."""
    if binary() is None:
        pytest.skip("mosquitto is not installed")


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class Mosquitto:
    """One broker: `start`, `stop` and `kill` it as often as a test likes, on the same port.

    Attributes:
        folder: Its settings, log and database.
        users: Name to password; with any, it asks for a login.
        acl: The lines of an ACL file; with any, what they do not name is refused.
        certificates: The authority's, its own certificate and its key: it then speaks TLS, and asks
            for a certificate whose common name is the user.
        persistent: Whether it has a database.
        settings: Further lines of its configuration.
        config: A configuration that replaces all of this.
    """

    folder: Path
    users: dict[str, str] = field(default_factory=dict, repr=False)
    acl: tuple[str, ...] = ()
    certificates: tuple[Path, Path, Path] | None = None
    persistent: bool = False
    settings: tuple[str, ...] = ()
    config: Path | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"mqtt{'s' if self.certificates else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        found = binary()
        assert found is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.config or self._write_config()
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([found, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self.answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether something accepts connections on its port."""
        with socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """Ends it in peace: it writes its database."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Lets it hang: connections stand and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def reload(self) -> None:
        """Lets it read its configuration again: users, ACL, revoked certificates."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def _write_config(self) -> Path:
        lines = [
            "user root",
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {str(not self.users and not self.certificates).lower()}",
            "max_queued_messages 20000",
            "set_tcp_nodelay true",
            "log_type error",
            "log_type warning",
            "log_type notice",
            *self._security(),
            *self._database(),
            *self.settings,
        ]
        path = self.folder / "mosquitto.conf"
        path.write_text("\n".join([*lines, ""]))
        return path

    def _security(self) -> Iterator[str]:
        if self.certificates:
            authority, certificate, key = self.certificates
            yield f"cafile {authority}"
            yield f"certfile {certificate}"
            yield f"keyfile {key}"
            yield "require_certificate true"
            yield "use_identity_as_username true"
        if self.users:
            yield f"password_file {self._write_users()}"
        if self.acl:
            path = self.folder / "acl"
            path.write_text("\n".join([*self.acl, ""]))
            path.chmod(0o600)
            yield f"acl_file {path}"

    def _database(self) -> Iterator[str]:
        yield f"persistence {str(self.persistent).lower()}"
        if self.persistent:
            database = self.folder / "database"
            database.mkdir(exist_ok=True)
            yield f"persistence_location {database}/"

    def _write_users(self) -> Path:
        path = self.folder / "passwords"
        path.unlink(missing_ok=True)
        for number, (name, password) in enumerate(self.users.items()):
            create = ["-c"] if number == 0 else []
            subprocess.run(
                ["mosquitto_passwd", *create, "-b", str(path), name, password],
                check=True,
                capture_output=True,
            )
        path.chmod(0o600)
        return path


@contextmanager
def running(folder: Path, **given: object) -> Iterator[Mosquitto]:
    """A broker that runs until the end of the block; skips by name where there is none."""
    require()
    broker = Mosquitto(folder, **given)  # type: ignore[arg-type]
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
