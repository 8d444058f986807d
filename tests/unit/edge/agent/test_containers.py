"""What is asked of an engine, and what a container is handed; the engines are in tests/e2e."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge.agent import containers, incontainer
from edge.agent.containers import Containers
from edge.agent.handover import NAME, Handover
from edge.protocol.messages import Module
from scoring.errors import DeploymentFailedError


def run(**settings: str) -> Module:
    return Module(package=f"sha256:{'0' * 64}", run="container", settings=settings)


def options(**settings: str) -> str:
    return " ".join(containers.limits(settings))


def test_a_container_has_no_more_rights_than_it_needs() -> None:
    found = options()
    for words in (
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--user 65534:65534",
        "--pids-limit 1024",
    ):
        assert words in found
    assert "--network" not in found


def test_limits_are_set() -> None:
    found = options(memory="512m", cpus="1.5", pids="64", network="none", user="7:7", tmp="1m")
    assert "--memory 512m --memory-swap 512m" in found
    assert "--cpus 1.5" in found
    assert "--pids-limit 64" in found
    assert "--network none" in found
    assert "--user 7:7" in found
    assert "size=1m" in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory", "much"),
        ("memory", "--privileged"),
        ("cpus", "-1"),
        ("pids", "1 --privileged"),
        ("network", "-host"),
        ("network", "container:x --privileged"),
        ("user", "a b"),
        ("tmp", "1m,exec"),
        ("base", "--privileged"),
        ("base", ""),
        ("base", "image\n"),
    ],
)
def test_nothing_else_gets_into_the_command(name: str, text: str) -> None:
    with pytest.raises(DeploymentFailedError, match=name):
        containers.limits({name: text})


def test_layers_are_mounted_where_the_image_would_have_them(tmp_path: Path) -> None:
    root = tmp_path / "unpacked" / "roots" / "abc"
    (tmp_path / "layer").mkdir()
    root.mkdir(parents=True)
    (root / "model").symlink_to(tmp_path / "layer")
    found = " ".join(containers.mounts(root, tmp_path / "shared"))
    assert f"--volume {tmp_path}/layer:/opt/fieldpost/model:ro" in found
    assert f"--volume {tmp_path}/shared:/run/fieldpost:ro" in found
    assert "/opt/fieldpost/code" not in found
    assert f"{tmp_path}/unpacked/container-pycache/abc:/opt/fieldpost/pycache" in found


def test_a_device_without_an_engine_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    mine = Containers(tmp_path / "containers")
    assert not mine.there
    with pytest.raises(DeploymentFailedError, match="No container engine") as caught:
        mine.launch(run(base="python:3.11"), tmp_path, {})
    assert "Docker or Podman" in caught.value.hint


def test_an_engine_that_does_not_answer_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("docker", "podman"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Cannot connect' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    mine = Containers(tmp_path / "containers")
    assert not mine.there
    (tmp_path / "podman").write_text("#!/bin/sh\nexit 0\n")
    assert mine.there  # it is asked again


def test_the_default_base_has_the_packages_python(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "environment.json").write_text('{"python": "3.12"}')
    assert containers.default_base(tmp_path) == "docker.io/library/python:3.12-slim"
    with pytest.raises(DeploymentFailedError, match="no package"):
        containers.default_base(tmp_path / "other")


_BOOT = "import os; print(os.environ['TOKEN'], os.read(int(os.environ['A_FD']), 9))"


def test_a_container_gets_descriptors_by_their_own_numbers(tmp_path: Path) -> None:
    """The program that runs in containers, here as a process."""
    folder = tmp_path / ("long" * 40)  # longer than a path of a UNIX socket may be
    root = tmp_path / "root"
    (root / "runtime" / "scoring").mkdir(parents=True)
    (root / "runtime" / "scoring" / "boot.py").write_text(_BOOT)
    pipes = [os.pipe() for _ in range(3)]
    contract = {name: pipe[0] for name, pipe in zip(("A_FD", "B_FD", "C_FD"), pipes, strict=True)}
    handover = Handover(folder, contract, {"TOKEN": "secret" * 20_000})
    try:
        os.write(pipes[0][1], b"through")
        source = Path(incontainer.__file__).read_text()
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        command = [sys.executable, "-I", "-S", "-c", source, f"/proc/self/fd/{here}/{NAME}"]
        done = subprocess.run(
            [*command, str(root)], capture_output=True, timeout=30, check=False, pass_fds=(here,)
        )
        os.close(here)
        assert done.stdout.decode().split() == ["secret" * 20_000, "b'through'"], done.stderr
    finally:
        handover.close()
        for number in (number for pipe in pipes for number in pipe):
            os.close(number)
    assert not folder.exists()


def test_numbers_that_collide_are_sorted_out() -> None:
    pipes = [os.pipe() for _ in range(2)]
    ends = [pipes[0][0], pipes[1][0]]
    for number, pipe in enumerate(pipes):
        os.write(pipe[1], b"%d" % number)
    try:
        found = incontainer.place(ends, {"A": ends[1], "B": ends[0]})
        assert found == {"A": ends[1], "B": ends[0]}
        assert [os.read(found[name], 1) for name in ("A", "B")] == [b"0", b"1"]
    finally:
        for pipe in pipes:
            for number in pipe:
                os.close(number)


def test_nobody_comes(tmp_path: Path) -> None:
    own = socket.create_server(("127.0.0.1", 0))
    with own:
        handover = Handover(tmp_path / "shared", {"A_FD": own.fileno()}, {})
        handover.close()
    assert not (tmp_path / "shared").exists()
