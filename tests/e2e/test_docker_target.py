"""Packages deployed to a real dockerd and a real Podman, asked over their published port.

The engines' own clients are the judges of what runs. Loading the first image into an engine takes
five to fifteen seconds here, and everything after that about two seconds for each deployment.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from scoring.errors import (
    DeploymentFailedError,
    FieldpostError,
    InUseError,
    NotFoundError,
    TargetError,
)
from serve import Workspace
from tests.support import engines
from tests.support.crews import Clients, Yard
from tests.support.local import eventually, free_port
from tests.support.registry import DockerRegistry, is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(600)

BOTH = pytest.mark.parametrize("yard", ["docker", "podman"], indirect=True)
DOCKER = pytest.mark.parametrize("yard", ["docker"], indirect=True)


@pytest.fixture(scope="module")
def yards(
    tmp_path_factory: pytest.TempPathFactory, base_rootfs: Path, request: pytest.FixtureRequest
) -> Iterator[dict[str, Yard]]:
    found: dict[str, Yard] = {}

    class Yards(dict[str, Yard]):
        def __missing__(self, kind: str) -> Yard:
            engine = request.getfixturevalue(f"{kind}_engine")
            folder = tmp_path_factory.mktemp(kind)
            found[kind] = self[kind] = Yard(folder, engine, f"rootfs:{base_rootfs}")
            return found[kind]

    yield Yards()
    for each in found.values():
        each.workspace.close()


@pytest.fixture
def yard(yards: dict[str, Yard], request: pytest.FixtureRequest) -> Iterator[Yard]:
    """A workspace for the engine that the test names; its deployments are removed."""
    found = yards[request.param]
    yield found
    for each in found.workspace.registry.deployments.list():
        found.remove(each.name)
    assert not found.engine.run("volume", "ls", "-q", "--filter", "label=dev.fieldpost.role=front")


@BOTH
def test_revisions_replace_each_other_under_load_on_one_port(yard: Yard) -> None:
    handle = yard.deploy("iris-1", yard.package(1))
    front = yard.containers("iris-1", "front")
    with Clients(handle.url) as clients:
        eventually(lambda: clients.seen(b"1"))
        again = yard.deploy("iris-1", yard.package(2), workers=2)
        eventually(lambda: clients.seen(b"2"))
        assert again.url == handle.url
        yard.workspace.deployments.rollback("iris-1")
        before = clients.answers[200, b"1"]
        eventually(lambda: clients.answers[200, b"1"] > before)
    assert clients.errors == []
    assert {status for status, _ in clients.answers} == {200}
    assert yard.containers("iris-1", "front") == front
    assert len(yard.containers("iris-1", "worker", every=True)) == 1
    view = yard.view("iris-1")
    assert (view.state, view.revision, len(view.workers)) == ("running", 3, 1)
    assert [each.state for each in view.revisions] == ["superseded", "superseded", "active"]


@BOTH
def test_a_revision_that_never_becomes_ready_leaves_the_one_before_alone(yard: Yard) -> None:
    handle = yard.deploy("iris-2", yard.package("old"))
    before = yard.containers("iris-2", every=True)
    with pytest.raises(DeploymentFailedError, match="Revision 2 of 'iris-2'") as caught:
        yard.deploy("iris-2", yard.package("new", init="raise KeyError('no such colour')"))
    assert "KeyError: 'no such colour'" in caught.value.detail
    assert "score.py" in caught.value.detail
    assert handle.score({}) == "old"
    assert yard.containers("iris-2", every=True) == before
    revision = yard.workspace.registry.deployments.get("iris-2").revisions[-1]
    assert revision.state == "failed"
    assert "no such colour" in revision.detail


@DOCKER
def test_failures_say_why(yard: Yard) -> None:
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "was not ready within 1 s": ("time.sleep(60)", {"ready_timeout_s": 1}),
        "ended with status 9": ("print('farewell', flush=True); os._exit(9)", {}),
        "needs more memory": ("hoard.append(b'x' * (1 << 30))", {"memory": "128m"}),
    }
    for words, (init, settings) in cases.items():
        with pytest.raises(DeploymentFailedError, match=words) as caught:
            yard.deploy("iris-3", yard.package(1, init=init), **settings)
        assert "status 9" not in words or "farewell" in caught.value.detail
    with free_port() as taken, pytest.raises(TargetError, match="it is taken") as refused:
        yard.deploy("iris-3", yard.package(1), port=taken)
    assert refused.value.where == "port"
    with pytest.raises(TargetError, match="network"):
        yard.deploy("iris-3", yard.package(1), network="nowhere")
    assert yard.view("iris-3").state == "stopped"
    assert yard.containers("iris-3", every=True) == []


@BOTH
def test_containers_have_what_was_asked_for_and_no_rights_besides(yard: Yard) -> None:
    settings: dict[str, Any] = {
        "memory": "512m",
        "cpus": 1.5,
        "labels": "team=forecast",
        "restart": "always",
    }
    yard.deploy("iris-4", yard.package(1), env__COLOUR="green", **settings)
    worker = yard.inspect("iris-4", "worker")
    host = worker["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (512 << 20, 512 << 20)
    assert host["NanoCpus"] == 1_500_000_000
    assert host["RestartPolicy"]["Name"] == "always"
    assert host["ReadonlyRootfs"] is True
    assert host["PidsLimit"] == 1024
    assert not host["Privileged"]
    assert not any((host["PortBindings"] or {}).values())
    assert "COLOUR=green" in worker["Config"]["Env"]
    assert worker["Config"]["User"] == "65532:65532"
    labels = worker["Config"]["Labels"]
    assert labels["team"] == "forecast"
    assert labels["dev.fieldpost.deployment"] == "iris-4"
    assert labels["dev.fieldpost.revision"] == "1"
    assert labels["dev.fieldpost.package"] == yard.view("iris-4").package
    for role in ("worker", "front"):
        (container,) = yard.containers("iris-4", role)
        status = _status_of(yard, container)
        assert (status["CapEff"], status["CapBnd"]) == ("0" * 16, "0" * 16)
        assert status["NoNewPrivs"] == "1"
        assert status["Uid"].split() == ["65532"] * 4
        assert yard.inspect("iris-4", role)["HostConfig"]["ReadonlyRootfs"] is True


def _status_of(yard: Yard, container: str) -> dict[str, str]:
    pid = yard.engine.run("inspect", "--format", "{{.State.Pid}}", container)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}


@DOCKER
def test_limits_and_hardening_do_not_hinder_scripts(yard: Yard) -> None:
    """The temporary folder can be written, the rest cannot, and without a network requests come."""
    init = (
        "open('/tmp/x', 'w').write('x'); import tempfile; tempfile.mkdtemp(); "
        "assert not os.access('/opt/fieldpost/code', os.W_OK)"
    )
    handle = yard.deploy("iris-5", yard.package(4, init=init), network="none", user="4711:4711")
    assert handle.score({}) == 4
    assert set(yard.inspect("iris-5", "worker")["NetworkSettings"]["Networks"]) == {"none"}


@DOCKER
def test_secrets_are_shown_nowhere(yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    init = "assert os.environ['TOKEN'] == 'open sesame'"
    yard.deploy("iris-6", yard.package(1, init=init), said.append, env__TOKEN="open sesame")
    failing = yard.package(1, init="sys.exit(1)")
    with pytest.raises(DeploymentFailedError) as caught:
        yard.deploy("iris-6", failing, said.append, env__TOKEN="open sesame")
    view = yard.view("iris-6")
    shown = f"{said} {caught.value} {caught.value.detail} {view} {capfd.readouterr()}"
    shown += "\n".join(yard.workspace.deployments.logs("iris-6"))
    commands = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True)
    assert "open sesame" not in shown + commands.stdout
    assert view.settings["env.TOKEN"] == "***"


@BOTH
def test_show_tells_what_became_of_the_containers(yard: Yard) -> None:
    handle = yard.deploy("iris-7", yard.package(1), memory="256m")
    (worker,) = yard.view("iris-7").workers
    assert (worker.state, worker.restarts) == ("ready", 0)
    assert 1 << 20 < (worker.rss_bytes or 0) < 256 << 20

    with contextlib.suppress(FieldpostError):
        handle.score("exit")
    eventually(lambda: yard.view("iris-7").restarts == 1)
    eventually(lambda: yard.view("iris-7").state == "running")
    assert handle.score({}) == 1

    yard.engine.run("pause", *yard.containers("iris-7", "worker"))
    paused = yard.view("iris-7")
    assert (paused.state, "is paused" in paused.note) == ("degraded", True)
    # A client may not list what is paused among what runs.
    yard.engine.run("unpause", *yard.containers("iris-7", "worker", every=True))

    yard.engine.run("kill", *yard.containers("iris-7", "front"))
    gone = eventually(lambda: (v := yard.view("iris-7")).state == "down" and v)
    assert "holds its port does not run" in gone.note
    assert yard.workspace.deployments.start("iris-7").url == handle.url
    assert handle.score({}) == 1

    now = ("--time", "0") if yard.engine.kind == "podman" else ()
    yard.engine.run("rm", "-f", *now, *yard.containers("iris-7"))
    removed = yard.view("iris-7")
    assert removed.state == "down"
    assert "'fieldpost deployment start iris-7'" in removed.note
    _remove_images(yard)
    assert yard.workspace.deployments.start("iris-7").url == handle.url
    assert (handle.score({}), yard.view("iris-7").state) == (1, "running")


def _remove_images(yard: Yard) -> None:
    names = yard.engine.run("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    yard.engine.run("rmi", "-f", *(name for name in names if "localhost/fieldpost:" in name))


@DOCKER
def test_a_worker_that_needs_too_much_memory_is_named(yard: Yard) -> None:
    handle = yard.deploy("iris-8", yard.package(1), memory="256m", restart="no")
    with contextlib.suppress(FieldpostError):
        handle.score("hog")
    view = eventually(lambda: (v := yard.view("iris-8")).state == "down" and v)
    assert "r1/w0 was killed: it needs more memory" in view.note
    assert view.workers[0].state == "failed"


@BOTH
def test_stop_drains_and_start_comes_back_to_the_same_address(yard: Yard) -> None:
    handle = yard.deploy("iris-9", yard.package(7))
    answers: list[Any] = []
    slow = threading.Thread(target=lambda: answers.append(handle.score("slow")))
    slow.start()
    eventually(lambda: "in_flight 1" in _in_flight(handle.url))
    yard.workspace.deployments.stop("iris-9")
    slow.join(20)
    assert answers == [7]
    assert (yard.view("iris-9").state, yard.containers("iris-9")) == ("stopped", [])
    with pytest.raises(FieldpostError):
        handle.score({})
    again = yard.workspace.deployments.start("iris-9")
    assert (again.url, again.score({})) == (handle.url, 7)
    with pytest.raises(InUseError):
        yard.workspace.deployments.delete("iris-9")


def _in_flight(url: str) -> str:
    metrics = httpx.get(f"{url}/metrics").text.splitlines()
    found = [line for line in metrics if "in_flight" in line and not line.startswith("#")]
    return " ".join(f"in_flight {float(line.rpartition(' ')[2]):.0f}" for line in found)


@BOTH
def test_logs_of_all_workers_are_one_and_go_on_over_revisions(yard: Yard) -> None:
    handle = yard.deploy("iris-10", yard.package(1))
    handle.score("say 1")
    lines = eventually(
        lambda: [x for x in yard.workspace.deployments.logs("iris-10") if "said" in x]
    )
    stamp, source, _ = lines[0].split(" ", 2)
    assert (stamp[-1], source) == ("Z", "r1/w0")
    assert len(list(yard.workspace.deployments.logs("iris-10", tail=1))) == 1

    heard: list[str] = []
    following = yard.workspace.deployments.logs("iris-10", follow=True, tail=0)

    def listen() -> None:
        for line in following:
            heard.append(line)
            if "said" in line and "r2/w0" in line:
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yard.deploy("iris-10", yard.package(2))

    def said_again() -> bool:
        handle.score("say 2")
        return not thread.is_alive()

    eventually(said_again, 20)
    assert not any("said" in line and "r1/w0" in line for line in heard)


@DOCKER
def test_containers_of_others_are_not_touched(yard: Yard, tmp_path: Path) -> None:
    other = Yard(tmp_path, yard.engine, yard.base)
    first, second = (
        yard.deploy("iris-11", yard.package(1)),
        other.deploy("iris-11", other.package(2)),
    )
    assert first.url != second.url
    yard.remove("iris-11")
    assert second.score({}) == 2
    assert other.view("iris-11").state == "running"
    other.remove("iris-11")
    other.workspace.close()


@BOTH
def test_a_container_of_somebody_else_keeps_the_name_that_we_wanted(yard: Yard) -> None:
    handle = yard.deploy("iris-14", yard.package(1))
    worker = yard.inspect("iris-14", "worker")
    name = str(worker["Name"]).removeprefix("/").replace("-r1-", "-r2-")
    theirs = yard.engine.run("create", "--name", name, worker["Image"], "true")
    try:
        with pytest.raises(TargetError, match="not of this deployment"):
            yard.deploy("iris-14", yard.package(2))
        assert yard.engine.run("inspect", "--format", "{{.Id}}", theirs) == theirs
    finally:
        yard.engine.run("rm", theirs)
    assert handle.score({}) == 1
    assert len(yard.containers("iris-14", every=True)) == 2


@DOCKER
def test_the_port_moves_where_it_is_told_to(yard: Yard) -> None:
    first = yard.deploy("iris-12", yard.package(1))
    with free_port() as port:
        """Free again below."""
    second = yard.deploy("iris-12", yard.package(2), port=port)
    assert second.url == f"http://127.0.0.1:{port}"
    assert second.score({}) == 2
    with pytest.raises(FieldpostError):
        first.score({})
    assert len(yard.containers("iris-12", every=True)) == 2
    # The same port on another address cannot be had beside the first: the old front goes before.
    third = yard.deploy("iris-12", yard.package(3), host="0.0.0.0")
    assert (third.url, third.score({})) == (second.url, 3)
    with pytest.raises(DeploymentFailedError):
        yard.deploy("iris-12", yard.package(4, init="sys.exit(1)"))
    assert third.score({}) == 3


MAIN = "from serve.cli.main import main; main()"
CORPUS = (
    b'{"data": [[1, 2], [3, 4]]}',
    b'{"data": [[1, 2]], "method": "predict"}',
    b'{"data": [[1]]}',
    b'{"data": [["x", 2]]}',
    b'{"data": [[null, 2]]}',
    b'{"data": [[1e999, 2]]}',
    b'{"data": []}',
    b'{"nothing": 1}',
    b"{",
    b"",
    b"\xff\xfe",
    b"[" * 100,
)
PATHS = ("/score", "/v2/models/twice/infer", "/invocations", "/v1/models/twice:predict", "/nowhere")


@BOTH
def test_the_same_package_answers_as_on_this_machine(yard: Yard, tmp_path: Path) -> None:
    package = _twice(yard, tmp_path)
    here = yard.workspace.deploy("here", package.digest, target="local")
    there = yard.deploy("there", package)
    assert yard.view("there").package == yard.view("here").package
    try:
        for path in PATHS:
            for body in CORPUS:
                assert _asked(here.url + path, body) == _asked(there.url + path, body), (path, body)
        for path in ("/", "/v2", "/v2/models/twice", "/swagger.json", "/health/ready"):
            assert _asked(here.url + path) == _asked(there.url + path), path
    finally:
        yard.workspace.deployments.stop("here")
        yard.workspace.deployments.delete("here")


def _twice(yard: Yard, folder: Path) -> Any:
    from tests.e2e.test_images import save_model

    save_model(folder / "twice.onnx")
    model = yard.workspace.models.register("twice", folder / "twice.onnx")
    return yard.workspace.packages.build(model)


def _asked(url: str, body: bytes | None = None) -> tuple[int, bytes, dict[str, str]]:
    headers = {"content-type": "application/json", "x-request-id": "same"}
    answer = httpx.request("GET" if body is None else "POST", url, content=body, headers=headers)
    varying = {"date", "x-ms-run-fn-exec-ms", "x-ms-client-request-id", "server-timing"}
    kept = {key: text for key, text in answer.headers.items() if key not in varying}
    return answer.status_code, answer.content, kept


@DOCKER
@pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")
def test_an_image_in_a_registry_is_pulled_by_the_engine(yard: Yard, tmp_path: Path) -> None:
    registry = DockerRegistry(tmp_path / "registry")
    registry.start()
    try:
        package = yard.package("from afar")
        name = f"{registry.host}/team/iris"
        yard.workspace.packages.push(package, f"{name}:1", base=yard.base)
        handle = yard.deploy("iris-13", package, base=None, image=f"{name}:1")
        assert handle.score({}) == "from afar"
        with pytest.raises(DeploymentFailedError, match="not the one that is to be deployed"):
            yard.deploy("iris-13", yard.package("another"), base=None, image=f"{name}:1")
        with pytest.raises((NotFoundError, TargetError)):
            yard.deploy("iris-13", package, base=None, image=f"{name}:2")
        assert handle.score({}) == "from afar"
    finally:
        registry.stop()


@DOCKER
def test_the_command_line(yard: Yard) -> None:
    package = yard.package("by command")

    def command(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *arguments, "--json"],
            env={
                **os.environ,
                "FIELDPOST_WORKSPACE": str(yard.workspace.registry.location.blobs),
                "FIELDPOST_BASE": yard.base,
                "DOCKER_HOST": yard.engine.host,  # and no setting
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    ref = ("--package", package.digest, "--target", "docker", "--set", "memory=512m")
    url = command("deploy", "cli", *ref)["url"]
    shown = command("deployment", "show", "cli")
    assert (shown["state"], shown["target"], shown["url"]) == ("running", "docker", url)
    assert httpx.post(f"{url}/score", json={}).json() == "by command"
    command("deployment", "stop", "cli")
    assert command("deployment", "show", "cli")["state"] == "stopped"
    command("deployment", "delete", "cli")


def test_an_engine_that_restarts_brings_the_deployment_back(
    yards: dict[str, Yard], tmp_path: Path
) -> None:
    shared = yards["docker"]  # its packages and its base, on an engine of the test's own
    try:
        with engines.running("docker") as daemon:
            _restart(Yard(tmp_path, daemon.engine, shared.base, shared.workspace), daemon)
            for name in ("iris-restart", "asleep"):
                shared.remove(name)
    except engines.NoEngineError as error:
        pytest.skip(f"no docker engine: {error}")


def _restart(yard: Yard, daemon: engines.Daemon) -> None:
    handle = yard.deploy("iris-restart", yard.package(1))
    yard.deploy("asleep", yard.package(2))
    yard.workspace.deployments.stop("asleep")
    daemon.stop()
    down = yard.view("iris-restart")
    assert down.state == "down"
    assert "No Docker engine runs at" in down.note
    with pytest.raises(TargetError):
        yard.deploy("iris-restart", yard.package(3))
    daemon.start()
    eventually(lambda: yard.view("iris-restart").state == "running")
    assert handle.score({}) == 1
    assert (yard.view("asleep").state, yard.containers("asleep")) == ("stopped", [])
    assert yard.deploy("iris-restart", yard.package(3)).url == handle.url
    assert handle.score({}) == 3


def test_other_machines_see_the_same_deployment(yards: dict[str, Yard]) -> None:
    """A second process of the workspace, as a colleague's, finds the containers by their labels."""
    yard = yards["docker"]
    yard.deploy("shared", yard.package(1))
    with Workspace(yard.workspace.registry.location.blobs) as colleague:
        assert colleague.deployments.get("shared").state == "running"
        colleague.deployments.stop("shared")
    assert yard.view("shared").state == "stopped"
    yard.remove("shared")
