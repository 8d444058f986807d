"""Real container engines for tests: a private dockerd, a private Podman service.

All test processes of one run share one engine of each kind. A keeper process has it as its child;
who uses it holds a connection to the keeper, and the last one that goes, however it ends, takes the
engine with it. `running(kind)` gives an engine of its own to a test that breaks or restarts it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Kind = Literal["docker", "podman"]

START_S = 60.0
_STOP_S = 30.0
_PATIENCE_S = 60.0
# Whoever starts an engine takes it along, also where it is killed.
_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM")
_NEEDS = {
    "docker": ("dockerd", "containerd", "runc", "ip", "setpriv"),
    "podman": ("podman", "conmon", "runc", "setpriv"),
}

_CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[network]
network_config_dir = "{folder}/networks"
default_network = "{bridge}"
default_subnet = "{subnet}.0/24"
"""
_CNI = """\
{{"cniVersion": "0.4.0", "name": "{bridge}", "plugins": [
  {{"type": "bridge", "bridge": "{bridge}", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {{"type": "host-local", "routes": [{{"dst": "0.0.0.0/0"}}],
            "ranges": [[{{"subnet": "{subnet}.0/24", "gateway": "{subnet}.1"}}]]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}},
  {{"type": "firewall"}}, {{"type": "tuning"}}]}}
"""
_NETAVARK = """\
{{"name": "{bridge}", "id": "{digest}", "driver": "bridge", "network_interface": "{bridge}",
 "created": "2024-01-01T00:00:00Z", "ipv6_enabled": false, "internal": false, "dns_enabled": false,
 "subnets": [{{"subnet": "{subnet}.0/24", "gateway": "{subnet}.1"}}],
 "ipam_options": {{"driver": "host-local"}}}}
"""
# Registries of tests answer over plain HTTP on loopback.
_REGISTRIES_CONF = """\
[[registry]]
location = "127.0.0.1"
insecure = true
[[registry]]
location = "localhost"
insecure = true
"""


class NoEngineError(Exception):
    """No engine of this kind runs here; the sentence says why."""


@dataclass(frozen=True)
class RunningEngine:
    """An engine that answers.

    Attributes:
        kind: Which.
        folder: Of all that it keeps.
    """

    kind: Kind
    folder: Path

    @property
    def socket(self) -> Path:
        """Its API's socket."""
        return self.folder / "engine.sock"

    @property
    def host(self) -> str:
        """As `DOCKER_HOST` names it."""
        return f"unix://{self.socket}"

    @property
    def cli(self) -> list[str]:
        """The command line client that speaks to it."""
        if self.kind == "docker":
            return ["docker", "--host", self.host]
        return ["podman", "--url", self.host]

    def run(self, *arguments: str, timeout_s: float = 60) -> str:
        """What the client prints; an assertion where it fails."""
        done = subprocess.run(
            [*self.cli, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ask(self, path: str) -> Any:
        """The JSON that the API answers a GET with."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request("GET", path)
            return json.load(connection.getresponse())
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """An engine's processes: start, stop, kill, start again on the same data.

    Args:
        kind: Which engine.
        folder: An empty one of its own, with a path short enough for sockets.

    Raises:
        NoEngineError: It cannot run on this machine.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        _require(kind)
        self.engine = RunningEngine(kind, folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._subnet = f"10.{random.randint(200, 250)}.{random.randint(0, 126)}"
        self._bridge = f"fp{folder.name[-8:]}"
        if kind == "podman":
            self._configure_podman()

    def start(self) -> None:
        """Starts it and waits until it answers; raises `NoEngineError` where it does not."""
        folder = self.engine.folder
        command = self._dockerd() if self.engine.kind == "docker" else self._podman()
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_WITH_PARENT, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=folder,  # Podman's monitor leaves a file where it stands when memory ends
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (folder / "log").read_text(errors="replace").splitlines()[-3:]
                self.stop()
                raise NoEngineError(f"{self.engine.kind} does not start: {' / '.join(said)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it as a machine's shutdown does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it without a warning; its containers go on for as long as it is away."""
        self._end(signal.SIGKILL)
        self._end_containerd()

    def close(self) -> None:
        """Ends it with all its containers and removes what it kept."""
        with contextlib.suppress(AssertionError, OSError, subprocess.SubprocessError):
            if self._process is not None:
                ids = self.engine.run("ps", "-aq").split()
                if ids:
                    now = ("--time", "0") if self.engine.kind == "podman" else ()
                    self.engine.run("rm", "-f", "-v", *now, *ids)
        self.stop()
        if self.engine.kind == "docker":
            self._end_containerd()
        _quietly("ip", "link", "delete", self._bridge)
        _unmount_below(self.engine.folder)
        shutil.rmtree(self.engine.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(self.engine.ask("/version").get("ApiVersion"))
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _end_containerd(self) -> None:
        """It outlives a dockerd that was killed, and would keep the next one waiting."""
        path = self.engine.folder / "exec/containerd/containerd.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            command = Path(f"/proc/{pid}/cmdline")
            if b"containerd" in command.read_bytes():
                os.kill(pid, signal.SIGKILL)
                deadline = time.monotonic() + _STOP_S
                while command.read_bytes() and time.monotonic() < deadline:
                    time.sleep(0.02)
            path.unlink()

    def _dockerd(self) -> list[str]:
        """Without the firewall's rules, which daemons of one machine would share and overwrite.

        Published ports go through the userland proxy then, as those on loopback always do.
        """
        folder = self.engine.folder
        _quietly("ip", "link", "add", self._bridge, "type", "bridge")
        _quietly("ip", "address", "add", f"{self._subnet}.1/24", "dev", self._bridge)
        _quietly("ip", "link", "set", self._bridge, "up")
        (folder / "daemon.json").write_text("{}")
        return [
            *("dockerd", "--config-file", f"{folder}/daemon.json", "--host", self.engine.host),
            *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
            *("--pidfile", f"{folder}/pid", "--storage-driver", "overlay2"),
            *("--iptables=false", "--ip6tables=false", "--ip-masq=false"),
            *("--bridge", self._bridge, "--shutdown-timeout", "5"),
            *("--default-address-pool", f"base={self._subnet.rpartition('.')[0]}.128.0/17,size=24"),
        ]

    def _configure_podman(self) -> None:
        """A network of its own, with a bridge of its own: several services share the machine."""
        folder = self.engine.folder
        values = {"folder": folder, "subnet": self._subnet, "bridge": self._bridge}
        values["digest"] = hashlib.sha256(self._bridge.encode()).hexdigest()
        (folder / "networks").mkdir()
        for name, form in (
            ("containers.conf", _CONTAINERS_CONF),
            ("registries.conf", _REGISTRIES_CONF),
            (f"networks/{self._bridge}.conflist", _CNI),
            (f"networks/{self._bridge}.json", _NETAVARK),
        ):
            (folder / name).write_text(form.format(**values))

    def _podman(self) -> list[str]:
        folder = self.engine.folder
        return [
            *("podman", "--root", f"{folder}/data", "--runroot", f"{folder}/run"),
            *("--storage-driver", "overlay", "--tmpdir", f"{folder}/tmp"),
            *("system", "service", "--time", "0", self.engine.host),
        ]

    def _environment(self) -> dict[str, str]:
        folder = self.engine.folder
        # dockerd finds its containerd's folder by this; the other configurations are Podman's.
        given = {"TMPDIR": str(folder), "CONTAINERS_CONF": f"{folder}/containers.conf"}
        given["CONTAINERS_REGISTRIES_CONF"] = f"{folder}/registries.conf"
        return {**os.environ, **given}


def _require(kind: Kind) -> None:
    missing = [name for name in _NEEDS[kind] if shutil.which(name) is None]
    if missing:
        raise NoEngineError(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        raise NoEngineError(f"a private {kind} needs root here")


def _quietly(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=False, timeout=30)


def _unmount_below(folder: Path) -> None:
    """What containers and layers have left mounted, the deepest first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        _quietly("umount", "--lazy", mount)


@contextlib.contextmanager
def running(kind: Kind) -> Iterator[Daemon]:
    """An engine of its own, for a test that stops, kills or fills it.

    Raises:
        NoEngineError: It cannot run on this machine.
    """
    daemon = Daemon(kind, Path(tempfile.mkdtemp(prefix=f"fp-{kind}-", dir="/tmp")))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@contextlib.contextmanager
def shared(kind: Kind, place: Path) -> Iterator[RunningEngine]:
    """The engine that all processes with the same place use together.

    Args:
        kind: Which engine.
        place: A folder that all of them know, and no one else.

    Raises:
        NoEngineError: It cannot run on this machine.
    """
    _require(kind)
    with (place / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held, folder = _join(place / f"{kind}.keeper") or _start_keeper(kind, place)
    with held:
        yield RunningEngine(kind, Path(folder))


def _join(address: Path) -> tuple[socket.socket, str] | None:
    """A connection to the keeper that is there, and its engine's folder."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(START_S)
    with contextlib.suppress(OSError):
        target = address.readlink()  # sockets' paths are short, those of test folders are not
        connection.connect(str(target))
        folder = connection.makefile("r").readline().strip()
        if folder:
            return connection, folder
    connection.close()
    return None


def _start_keeper(kind: Kind, place: Path) -> tuple[socket.socket, str]:
    folder = Path(tempfile.mkdtemp(prefix=f"fp-{kind}-", dir="/tmp"))
    with (place / f"{kind}.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.support.engines", kind, str(folder)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # not with the terminal's Ctrl-C: the tests still clean up
        )
    assert keeper.stdout is not None
    said = keeper.stdout.readline().decode().strip()
    keeper.stdout.close()
    keeper.returncode = 0  # nobody waits for it: it goes when the last user has gone
    if said != "ready":
        raise NoEngineError(said or f"the keeper of {kind} has failed; see {place}/{kind}.log")
    link = place / f"{kind}.keeper"
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "keeper.sock")
    joined = _join(link)
    assert joined is not None
    return joined


def keep(kind: Kind, folder: Path) -> None:
    """Runs an engine for as long as anyone is connected."""
    try:
        daemon = Daemon(kind, folder)
        daemon.start()
    except NoEngineError as error:
        shutil.rmtree(folder, ignore_errors=True)
        print(error, flush=True)
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(folder / "keeper.sock"))
            listener.listen(64)
            print("ready", flush=True)
            _hold(listener, lambda user: user.sendall(f"{folder}\n".encode()))
    finally:
        daemon.close()


def _hold(listener: socket.socket, greet: Callable[[socket.socket], None]) -> None:
    """Returns when the last user has gone."""
    users: list[socket.socket] = []
    listener.settimeout(_PATIENCE_S)
    with contextlib.suppress(TimeoutError):
        users.append(listener.accept()[0])
        greet(users[0])
    while users:
        ready = select.select([listener, *users], [], [])[0]
        for each in ready:
            if each is listener:
                users.append(listener.accept()[0])
                greet(users[-1])
            elif not each.recv(64):
                users.remove(each)
                each.close()


if __name__ == "__main__":
    given: Any = sys.argv[1]
    keep(given, Path(sys.argv[2]))
