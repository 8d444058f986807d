"""A real PostgreSQL for the tests: its own server, in a temporary folder, for one test session."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import tenacity

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "fieldpost"
PASSWORD = "s3cr3t/p@ss"
ENCODED_PASSWORD = "s3cr3t%2Fp%40ss"


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: the newest of this machine, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


def _version(path: Path) -> float:
    with contextlib.suppress(ValueError):
        return float(path.parts[-3])
    return 0.0


class PostgreSQL:
    """A server on a loopback port; it refuses to run as root, so it gets another user there."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged()
        self.port = _free_port()

    def create(self) -> None:
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
            self._folder.chmod(0o755)
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = [f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256"]
        self._run(
            "initdb", "-D", str(self._data), "--encoding=UTF8", "--locale=C.UTF-8", "-N", *options
        )

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), *arguments],
            user=self._user,
            cwd=self._folder,
            check=True,
            capture_output=True,
            timeout=120,
        )

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",  # of the server: what is tested here is our side
            "max_connections": 60,
            "shared_buffers": "16MB",
        }
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self._data), *arguments],
                user=self._user,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def wait_until_ready(self) -> None:
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_delay(30), wait=tenacity.wait_fixed(0.05), reraise=True
        ):
            with attempt:
                self.execute("SELECT 1")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(2)  # SIGINT: a fast shutdown
            self._process.wait(timeout=30)
            self._process = None

    def execute(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.conninfo(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def conninfo(self) -> str:
        return f"postgresql://{USER}:{ENCODED_PASSWORD}@127.0.0.1:{self.port}/postgres"

    def url(self, blobs: Path, database: str = "postgres") -> str:
        """What a user gives as a workspace."""
        address = f"postgresql://{USER}:{ENCODED_PASSWORD}@127.0.0.1:{self.port}/{database}"
        return f"{address}?blobs={blobs}"

    def clear(self) -> None:
        """An empty database, cheaper than a new one."""
        self.execute(
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public",
            "GRANT USAGE ON SCHEMA public TO PUBLIC",
        )


def _unprivileged() -> int | None:
    if os.getuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_uid
    return pwd.getpwnam("nobody").pw_uid


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def running(binaries: Path) -> Iterator[PostgreSQL]:
    """A server that is ready; it and its files are gone after the block."""
    # Not pytest's folder: a socket's path must be short, and the server's user must reach it.
    with tempfile.TemporaryDirectory(prefix="fieldpost-pg-", dir="/tmp") as folder:
        server = PostgreSQL(binaries, Path(folder))
        server.create()
        server.start()
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()
