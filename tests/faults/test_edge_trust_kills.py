"""A device that is killed while it writes whom it believes: old or new, never anything else."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fleettrust import START, Fleet

_TAKE_ON = """
import os, signal, sys
from pathlib import Path
import scoring.durable as durable
left = int(sys.argv[4])
real = {name: getattr(os, name) for name in ("write", "fsync", "fchmod")}
def counted(name):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "write" and left == 0:  # torn: half of it reaches the file
            real[name](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real[name](*arguments, **named)
    return call
from edge.security.trust import DeviceTrust
folder, metadata, wish = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
root = (metadata / "1.root.json").read_bytes()
trust = DeviceTrust(folder, site="hall", device="camera", root=root)
def fetch(name, most_bytes):
    path = metadata / name
    return path.read_bytes() if path.exists() else None
for name in real:
    setattr(os, name, counted(name))
trust.verify(wish.read_bytes(), float(sys.argv[5]), fetch)
"""


def _run(fleet: Fleet, folder: Path, wish: Path, step: int) -> int:
    command = [sys.executable, "-c", _TAKE_ON, str(folder), str(fleet.folder), str(wish), str(step)]
    command.append(str(START))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, check=False, timeout=60, env=environment).returncode


def test_killed_at_every_step(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "metadata")
    device = fleet.device(tmp_path / "device")
    old = fleet.wish(1, fleet.permit("v1"))
    device.verify(old, START, fleet.fetch)
    fleet.permit("v2")
    new = fleet.wish(2, fleet.permit("v2"))
    (tmp_path / "wish").write_bytes(new)
    steps, folder = 0, tmp_path / "tried"
    shutil.copytree(tmp_path / "device", folder)
    while (status := _run(fleet, folder, tmp_path / "wish", steps)) != 0:
        assert status == -signal.SIGKILL
        again = fleet.device(folder)
        assert not again.damaged
        assert again.state.generation in {1, 2}
        again.recheck(old if again.state.generation == 1 else new)
        assert again.verify(new, START, fleet.fetch).generation == 2
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "device", folder)
        steps += 1
        assert steps < 100
    assert steps > 20
    assert fleet.device(folder).state.generation == 2


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_on_the_disk_are_never_believed(tmp_path: Path, seed: int) -> None:
    """Whatever is in the files, a device begins with the old, the new, or its first root."""
    fleet, chance = Fleet(tmp_path / "metadata"), random.Random(seed)
    device = fleet.device(tmp_path / "device")
    wish = fleet.wish(3, fleet.permit("v1"))
    device.verify(wish, START, fleet.fetch)
    for name in ("trust-a", "trust-b"):
        path = tmp_path / "device" / name
        whole = bytearray(path.read_bytes())
        for _ in range(chance.randint(0, 3)):
            whole[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(whole[: chance.randint(0, len(whole))] if chance.random() < 0.3 else whole)
    again = fleet.device(tmp_path / "device")
    assert again.state.generation in {0, 3}
    assert again.damaged == (again.state.generation == 0)
    assert again.verify(wish, START, fleet.fetch).generation == 3
