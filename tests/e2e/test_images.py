"""Images as engines and other tools take them: run, asked, stopped, read back.

The judges are Docker, Podman and skopeo, on a base made by Debian's own tool.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from scoring.errors import PackagingError
from scoring.packages.unpack import unpack_package
from serve import Workspace
from tests.support import smallbases
from tests.support.server import until

if TYPE_CHECKING:
    from serve.registry.records import Package
    from tests.support.engines import RunningEngine

pytestmark = pytest.mark.timeout(300)

HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "12345", "--pids-limit", "64"),
)
# Podman gives a read-only container writable folders unless it is told not to.
PODMAN_HARDENED = (*HARDENED, "--read-only-tmpfs=false")
BODY = {"data": [[1, 2]]}
ANSWER = {"predictions": [[2.0, 4.0]]}


@dataclass(frozen=True)
class Built:
    """A workspace with a package, and what its image stands on."""

    folder: Path
    workspace: Workspace
    package: Package
    base: str

    def export(self, to: str) -> str:
        """Writes the image; its digest."""
        return self.workspace.packages.export(self.package, to, base=self.base).digest


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, base_rootfs: Path) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("images")
    save_model(folder / "twice.onnx")
    with Workspace(folder / "workspace") as workspace:
        model = workspace.models.register("twice", folder / "twice.onnx")
        package = workspace.packages.build(model, platform="linux/amd64")
        yield Built(folder, workspace, package, f"rootfs:{base_rootfs}")


def save_model(path: Path) -> None:
    """`y = x + x`, for any number of rows of two floats."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y")
    )
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)


@pytest.fixture(scope="module")
def archive(built: Built) -> Path:
    path = built.folder / "image.tar"
    built.export(f"docker-archive:{path}:fieldpost-test/twice:1")
    return path


@pytest.fixture(scope="module")
def docker(docker_engine: RunningEngine, archive: Path) -> RunningEngine:
    docker_engine.run("load", "-i", str(archive), timeout_s=120)
    return docker_engine


@pytest.fixture(scope="module")
def podman(podman_engine: RunningEngine, archive: Path) -> RunningEngine:
    podman_engine.run("load", "-i", str(archive), timeout_s=120)
    return podman_engine


@dataclass(frozen=True)
class Container:
    """A running one."""

    engine: RunningEngine
    id: str
    url: str

    def inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.engine.run("inspect", self.id))[0]
        return found

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            assert self.inspect()["State"]["Running"], self.logs()
            return False

    def logs(self) -> str:
        command = [*self.engine.cli, "logs", self.id]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout + done.stderr


@contextmanager
def running(engine: RunningEngine, *options: str, hardened: bool = True) -> Iterator[Container]:
    safe = PODMAN_HARDENED if engine.kind == "podman" else HARDENED
    given = [*(safe if hardened else ()), *options]
    image = "fieldpost-test/twice:1"
    made = engine.run("run", "-d", "-p", "127.0.0.1::5001", *given, image, timeout_s=60)
    try:
        port = engine.run("port", made, "5001").splitlines()[0]
        container = Container(engine, made, f"http://{port}")
        until(container.answers, timeout_s=60)
        yield container
    finally:
        engine.run("rm", "-f", made, timeout_s=60)


def test_docker_runs_it_without_any_right(docker: RunningEngine) -> None:
    with running(docker) as container:
        assert httpx.post(f"{container.url}/score", json=BODY).json() == ANSWER
        health = container.inspect()["Config"]["Healthcheck"]["Test"]
        assert docker.run("exec", container.id, *health[1:]) == "ready"
        began = time.monotonic()
        docker.run("stop", "--time", "30", container.id, timeout_s=60)
        assert time.monotonic() - began < 20
        assert container.inspect()["State"]["ExitCode"] == 0, container.logs()


def test_podman_runs_it_without_any_right(podman: RunningEngine) -> None:
    with running(podman) as container:
        assert httpx.post(f"{container.url}/score", json=BODY).json() == ANSWER
        podman.run("stop", "--time", "30", container.id, timeout_s=60)
        assert container.inspect()["State"]["ExitCode"] == 0, container.logs()


def test_docker_sees_that_it_is_healthy(docker: RunningEngine) -> None:
    with running(docker, "--health-interval", "1s") as container:
        until(lambda: container.inspect()["State"]["Health"]["Status"] == "healthy", timeout_s=60)


def test_the_user_and_the_settings_of_the_image(docker: RunningEngine) -> None:
    config = json.loads(docker.run("image", "inspect", "fieldpost-test/twice:1"))[0]["Config"]
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert config["WorkingDir"] == "/opt/fieldpost"
    assert config["ExposedPorts"] == {"5001/tcp": {}}
    assert config["Labels"]["org.opencontainers.image.title"] == "twice"
    assert not config.get("Cmd")


PROCESSES = """
import os
for pid in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
    command = open(f"/proc/{pid}/cmdline").read()
    if "boot.py" in command and int(pid) != os.getpid():
        print(pid, open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
"""


PROCESSOR_TIME = """
ticks = 0
for pid in (1, *map(int, open("/proc/1/task/1/children").read().split())):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    ticks += int(fields[11]) + int(fields[12])
print(ticks)
"""


def processes(container: Container) -> dict[int, int]:
    """The server's processes by their ids in the container, and their parents."""
    text = container.engine.run("exec", container.id, "python3.11", "-c", PROCESSES)
    return {int(pid): int(parent) for pid, parent in map(str.split, text.splitlines())}


def test_several_workers_in_one_container(docker: RunningEngine) -> None:
    with running(docker, "-e", "FIELDPOST_SERVER_WORKERS=2") as container:
        before = processes(container)
        assert before[1] == 0
        (supervisor,) = (pid for pid, parent in before.items() if parent == 1)
        workers = {pid for pid, parent in before.items() if parent == supervisor}
        assert len(workers) == 2
        docker.run(
            "exec", container.id, "python3.11", "-c", f"import os; os.kill({min(workers)}, 9)"
        )

        def replaced() -> bool:
            now = {pid for pid, parent in processes(container).items() if parent == supervisor}
            return len(now) == 2 and min(workers) not in now

        until(replaced, timeout_s=60)
        assert httpx.post(f"{container.url}/score", json=BODY).json() == ANSWER
        docker.run("stop", "--time", "30", container.id, timeout_s=60)
        assert container.inspect()["State"]["ExitCode"] == 0, container.logs()


def test_the_engine_s_own_init_may_be_process_1(docker: RunningEngine) -> None:
    if shutil.which("docker-init") is None:
        pytest.skip("docker-init (tini) is not installed")
    with running(docker, "--init") as container:
        (server,) = (pid for pid, parent in processes(container).items() if parent == 1)
        assert processes(container) == {1: 0, server: 1}


def test_a_container_starts_within_a_second_of_processor_time(docker: RunningEngine) -> None:
    """Clocks of a shared machine say little; what the processes used until the answer does."""
    with running(docker) as container:
        usage = docker.run(
            "exec",
            container.id,
            "python3.11",
            "-c",
            PROCESSOR_TIME,
        )
        assert int(usage) / os.sysconf("SC_CLK_TCK") < 1.5


def test_skopeo_reads_what_is_exported(built: Built, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    digests = {
        built.export(f"oci:{tmp_path}/layout:v1"),
        built.export(f"oci-archive:{tmp_path}/layout.tar"),
    }
    (digest,) = digests
    for place in (f"oci:{tmp_path}/layout:v1", f"oci-archive:{tmp_path}/layout.tar"):
        done = subprocess.run(["skopeo", "inspect", place], capture_output=True, check=True)
        assert json.loads(done.stdout)["Digest"] == digest
    copied = f"oci:{tmp_path}/copy:v1"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{tmp_path}/layout:v1", copied], check=True)
    done = subprocess.run(["skopeo", "inspect", copied], capture_output=True, check=True)
    assert json.loads(done.stdout)["Digest"] == digest


def test_an_export_into_the_engine(
    docker_engine: RunningEngine, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.host)
    done = built.workspace.packages.export(
        built.package, "docker-daemon:fieldpost-test/direct:1", base=built.base
    )
    found = json.loads(docker_engine.run("image", "inspect", "fieldpost-test/direct:1"))[0]
    assert found["Config"]["Labels"]["dev.fieldpost.package"] == done.package


def test_everything_above_the_base_is_small(built: Built) -> None:
    image = built.workspace.packages.image(built.package, base=built.base).images[0]
    above = image.layers[len(image.base.layers) :]
    assert sum(layer.size for layer in above) < 55_000_000


def test_one_package_for_two_platforms(built: Built, tmp_path: Path) -> None:
    """The wheels of each, without an emulator; a local deployment takes its own."""
    packages = built.workspace.packages
    both = packages.build("twice", platform="linux/arm64,linux/amd64")
    assert both.platform == "linux/amd64,linux/arm64"
    assert packages.platforms(both)["linux/amd64"] == built.package.digest
    assert packages.get("twice").digest == both.digest
    packages.verify(both)
    arm = tmp_path / "arm.tar"
    arm.write_bytes(smallbases.archive(smallbases.system(platform="linux/arm64")))
    base = f"linux/amd64={built.base},linux/arm64=rootfs:{arm}"
    images = packages.image(both, base=base)
    assert images.platforms == ("linux/amd64", "linux/arm64")
    assert images.images[0].digest == built.export(f"oci:{tmp_path}/one:v1")
    packages.export(both, f"oci:{tmp_path}/both:v1", base=base)
    for architecture in ("amd64", "arm64"):
        command = ["skopeo", "inspect", "--override-arch", architecture, f"oci:{tmp_path}/both:v1"]
        done = subprocess.run(command, capture_output=True, check=True)
        assert json.loads(done.stdout)["Architecture"] == architecture
    with Workspace(tmp_path / "elsewhere") as other:
        assert other.packages.take(f"oci:{tmp_path}/both:v1").digest == both.digest
        root = unpack_package(both.digest, other.registry.blobs, tmp_path / "cache")
    assert (root / "env" / "environment.json").read_text().count("linux/amd64") == 1
    with pytest.raises(PackagingError, match="for linux/amd64, and the package for linux/arm64"):
        packages.image(both, base=built.base)


BUILD = """
import os, sys, time
folder, base = sys.argv[1], sys.argv[2]
assert os.getuid() == int(sys.argv[3])
os.umask(int(sys.argv[4], 8))
from serve import Workspace
with Workspace(folder + "/ws") as workspace:
    model = workspace.models.register("twice", folder + "/twice.onnx")
    script = folder + "/source/score.py"
    for given in ({}, {"script": script, "source": folder + "/source"}):
        package = workspace.packages.build(model, platform="linux/amd64", **given)
        print(package.digest, workspace.packages.image(package, base="rootfs:" + base).digest)
"""


def as_user(uid: int) -> list[str]:
    """Runs a command as a user who may read this machine's Python, wherever root has put it."""
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *rights]


def made_elsewhere(folder: Path, base: Path, *, uid: int, umask: str, **variables: str) -> str:
    """What another user, in another folder, locale and zone, builds from the same files."""
    source = folder / "source"
    source.mkdir(parents=True)
    names = ["score.py", "b.txt", "a.txt"] if uid else ["a.txt", "b.txt", "score.py"]
    for name in names:
        (source / name).write_text("def init(): ...\ndef run(data): return data\n")
        os.utime(source / name, (uid * 1000, uid * 1000))
        (source / name).chmod(0o600 if uid else 0o644)
    save_model(folder / "twice.onnx")
    copied = folder / "base.tar"
    shutil.copyfile(base, copied)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)
    code = Path(__file__).parents[2]
    done = subprocess.run(
        [*as_user(uid), sys.executable, "-c", BUILD, str(folder), str(copied), str(uid), umask],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(code), "HOME": str(folder)} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_user_at_another_place_and_time_makes_the_same(
    tmp_path: Path, base_rootfs: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root with setpriv can build as another user")
    cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
    one = made_elsewhere(
        tmp_path / "one", base_rootfs, uid=0, umask="0022", LC_ALL="C", TZ="UTC",
        PYTHONHASHSEED="1", UV_CACHE_DIR=cache,
    )  # fmt: skip
    two = made_elsewhere(
        tmp_path / "zwei" / "ö", base_rootfs, uid=12345, umask="0077", LC_ALL="C.UTF-8",
        TZ="Asia/Kathmandu", PYTHONHASHSEED="4711", SOURCE_DATE_EPOCH="1234567890",
        UV_CACHE_DIR=cache,
    )  # fmt: skip
    assert one == two
    assert len(one.split()) == 4
