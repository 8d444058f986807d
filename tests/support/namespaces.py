"""Hosts on one machine: network namespaces on a bridge, which can be cut off, deafened and slowed.

Needs root with `ip` and `iptables` (and `tc` for `slow`); `require` skips by name without.
Everything is named by this process and taken away at the end of the block.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import itertools
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_PLACES = "/usr/sbin:/sbin"
_COUNT = itertools.count()


def require() -> None:
    """Skips a test by name where no namespaces can be made."""
    for name in ("ip", "iptables"):
        if _find(name) is None:
            pytest.skip(f"{name} is not installed")
    tried = f"fieldpost-{os.getpid()}"
    made = _call("ip", "netns", "add", tried)
    if made.returncode:
        pytest.skip("network namespaces are not permitted here")
    _call("ip", "netns", "del", tried)


def require_shaping() -> None:
    """Skips a test by name where links cannot be slowed."""
    if _find("tc") is None:
        pytest.skip("tc is not installed")


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_PLACES)


def _call(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    found = _find(name)
    assert found is not None
    return subprocess.run([found, *words], capture_output=True, text=True, check=False)


def _do(name: str, *words: str) -> None:
    done = _call(name, *words)
    assert done.returncode == 0, f"{name} {' '.join(words)}: {done.stderr}"


@dataclass
class Host:
    """A machine of its own, as far as the network goes.

    Attributes:
        name: Of its namespace.
        address: By which the others reach it.
        port: The end of its cable on the bridge.
    """

    name: str
    address: str
    port: str

    def command(self, *words: str | Path) -> list[str]:
        """How a command is run there."""
        found = _find("ip")
        assert found is not None
        return [found, "netns", "exec", self.name, *map(str, words)]

    # -- what happens to its cable

    def cut(self) -> None:
        """Nothing comes and nothing goes, and nobody is told."""
        self._drop("INPUT", "-i", "eth0")
        self._drop("OUTPUT", "-o", "eth0")

    def deafen(self) -> None:
        """What it says arrives; it hears nothing any more: the connection is half open."""
        self._drop("INPUT", "-i", "eth0")

    def lose(self, part: float) -> None:
        """A part of all packets is lost, each way."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", f"{part:.4f}")
        self._drop("INPUT", "-i", "eth0", *chance)
        self._drop("OUTPUT", "-o", "eth0", *chance)

    def slow(self, bits_s: int) -> None:
        """At most so many bits a second, each way."""
        shape = ("tbf", "rate", f"{bits_s}bit", "burst", "8kb", "latency", "400ms")
        _do("tc", "qdisc", "replace", "dev", self.port, "root", *shape)
        self._inside("tc", "qdisc", "replace", "dev", "eth0", "root", *shape)

    def mend(self) -> None:
        """Nothing is dropped any more."""
        for chain in ("INPUT", "OUTPUT"):
            self._inside("iptables", "-w", "-F", chain)

    def _drop(self, chain: str, *which: str) -> None:
        self._inside("iptables", "-w", "-A", chain, *which, "-j", "DROP")

    def _inside(self, name: str, *words: str) -> None:
        found = _find(name)
        assert found is not None
        _do("ip", "netns", "exec", self.name, found, *words)

    # -- what someone who sits there sees

    def connect(self, port: int, timeout_s: float = 5.0) -> socket.socket:
        """A connection to a port of its own loopback, from inside."""
        made: list[socket.socket | OSError] = []

        def inside() -> None:  # a thread of its own: it never comes back from there
            try:
                _enter(self.name)
                made.append(socket.create_connection(("127.0.0.1", port), timeout_s))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def ask(self, port: int, path: str = "/") -> str:
        """What a server of its own answers, asked from inside."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.sock = self.connect(port)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Connection": "close"})
            return connection.getresponse().read().decode()


def _enter(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns failed")
    finally:
        os.close(fd)


@dataclass
class Net:
    """A bridge with hosts on it; this machine is on it too, at `address`."""

    mark: str
    prefix: str
    hosts: list[Host] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of this machine."""
        return f"{self.prefix}.1"

    def host(self) -> Host:
        """A further one."""
        number = len(self.hosts) + 2
        made = Host(f"{self.mark}h{number}", f"{self.prefix}.{number}", f"{self.mark}p{number}")
        self.hosts.append(made)
        inner = f"{self.mark}i{number}"
        _do("ip", "netns", "add", made.name)
        _do("ip", "link", "add", made.port, "type", "veth", "peer", "name", inner)
        _do("ip", "link", "set", inner, "netns", made.name, "name", "eth0")
        _do("ip", "link", "set", made.port, "master", f"{self.mark}br", "up")
        inside: Sequence[Sequence[str]] = (
            ("addr", "add", f"{made.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        )
        for words in inside:
            _do("ip", "-n", made.name, *words)
        return made


@contextlib.contextmanager
def network() -> Iterator[Net]:
    """A bridge without hosts; all that was put on it goes at the end."""
    require()
    number = os.getpid() * 8 + next(_COUNT) % 8
    made = Net(f"f{number:x}", f"10.{64 + number // 254 % 64}.{number % 254 + 1}")
    bridge = f"{made.mark}br"
    _do("ip", "link", "add", bridge, "type", "bridge")
    try:
        _do("ip", "addr", "add", f"{made.address}/24", "dev", bridge)
        _do("ip", "link", "set", bridge, "up")
        yield made
    finally:
        for host in made.hosts:
            _call("ip", "netns", "del", host.name)
            _call("ip", "link", "del", host.port)
        _do("ip", "link", "del", bridge)
