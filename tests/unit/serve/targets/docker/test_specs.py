"""Containers as documents: what engines get, without one."""

from __future__ import annotations

from typing import Any

import pytest

from serve.targets.docker import specs
from serve.targets.docker.names import Names
from serve.targets.docker.settings import parse
from serve.targets.docker.specs import EngineFacts, ImageFacts

OWN = Names("0123456789abcdef", "iris")
IMAGE = ImageFacts(
    "sha256:image", ("python3.11", "-I", "boot.py", "/opt/fieldpost"), "sha256:package"
)
DOCKER, PODMAN = EngineFacts("docker"), EngineFacts("podman", restarts_later=False)


def worker(engine: EngineFacts = DOCKER, slot: int = 0, **given: str) -> dict[str, Any]:
    settings = {key.replace("__", "."): text for key, text in given.items()}
    return specs.worker(OWN, 3, slot, "the-run", IMAGE, parse(settings), engine)


def front(engine: EngineFacts = DOCKER, **given: str) -> dict[str, Any]:
    settings = {key.replace("__", "."): text for key, text in given.items()}
    return specs.front(OWN, 3, IMAGE, parse(settings), engine, 8080)


def variables(document: dict[str, Any]) -> dict[str, str]:
    return dict(item.split("=", 1) for item in document["Env"])


def test_names_tell_workspaces_apart() -> None:
    assert OWN.worker(3, 1) == "fieldpost-iris-012345-r3-w1"
    assert OWN.front(1) != Names("f" * 16, "iris").front(1)


def test_a_worker_becomes_the_image_s_own_command() -> None:
    document = worker(slot=2)
    assert document["Entrypoint"][:3] == ["python3.11", "-I", "-S"]
    assert "recv_fds" in document["Entrypoint"][-1]
    assert document["Cmd"] == ["/run/fieldpost/front.sock", "r3/w2", *IMAGE.command]
    assert document["Image"] == IMAGE.id
    assert document["Healthcheck"] == {"Test": ["NONE"]}
    assert "PortBindings" not in document["HostConfig"]


@pytest.mark.parametrize("document", [worker(), front(), worker(PODMAN), front(PODMAN)])
def test_no_container_has_more_rights_than_it_needs(document: dict[str, Any]) -> None:
    host = document["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["PidsLimit"] > 0
    assert "User" not in document  # the image's own, which is not root
    assert "Privileged" not in host
    assert document["Labels"]["dev.fieldpost.workspace"] == OWN.workspace


def test_limits() -> None:
    host = worker(memory="1g", cpus="0.5", pids="99", tmp="64m")["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (1 << 30, 1 << 30, 500_000_000)
    assert host["PidsLimit"] == 99
    assert f"size={64 << 20}" in host["Tmpfs"]["/tmp"]
    assert "Memory" not in worker()["HostConfig"]


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("all", {"Count": -1}),
        ("2", {"Count": 2}),
        ("device=GPU-1,GPU-2", {"DeviceIDs": ["GPU-1", "GPU-2"]}),
    ],
)
def test_gpus_of_docker(text: str, request_: dict[str, Any]) -> None:
    (found,) = worker(gpus=text)["HostConfig"]["DeviceRequests"]
    assert found == {"Driver": "", "Capabilities": [["gpu"]], **request_}
    assert "DeviceRequests" not in front(gpus=text)["HostConfig"]


@pytest.mark.parametrize(
    ("text", "names"), [("all", ["all"]), ("2", ["0", "1"]), ("device=3", ["3"])]
)
def test_gpus_of_podman_have_names(text: str, names: list[str]) -> None:
    devices = worker(PODMAN, gpus=text)["HostConfig"]["Devices"]
    assert [each["PathOnHost"] for each in devices] == [f"nvidia.com/gpu={n}" for n in names]


def test_a_new_worker_restarts_only_once_it_answers() -> None:
    assert worker()["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert worker(PODMAN)["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped"}
    on_failure = specs.restart_policy(parse({"restart": "on-failure"}))
    assert on_failure == {"Name": "on-failure", "MaximumRetryCount": 10}
    assert front()["HostConfig"]["RestartPolicy"] == {"Name": "always"}
    assert front(restart="no")["HostConfig"]["RestartPolicy"] == {"Name": "no"}


def test_the_environment_of_a_worker() -> None:
    found = variables(worker(env__TOKEN="a=b", workers="2", slot=1, scoring_timeout_ms="100"))
    assert found["TOKEN"] == "a=b"
    assert found["FIELDPOST_SERVER_SCORING_TIMEOUT_MS"] == "100"
    assert (found["FIELDPOST_WORKER_SLOT"], found["FIELDPOST_WORKER_COUNT"]) == ("1", "2")
    assert found["FIELDPOST_SERVER_METRICS_DIR"] == "/run/fieldpost/metrics-r3"
    limited = variables(worker(workers="2", cpus="1"))
    assert "FIELDPOST_WORKER_COUNT" not in limited  # each has its own share by its limit
    assert "TOKEN" not in variables(front(env__TOKEN="secret"))


def test_the_front_publishes_the_port() -> None:
    document = front(host="0.0.0.0")
    published = [{"HostIp": "0.0.0.0", "HostPort": "8080"}]
    assert document["HostConfig"]["PortBindings"] == {"5001/tcp": published}
    assert document["Cmd"] == ["/run/fieldpost/front.sock", "0.0.0.0", "5001"]


def test_networks() -> None:
    assert worker(network="none")["HostConfig"]["NetworkMode"] == "none"
    assert front(network="none")["HostConfig"]["NetworkMode"] == "default"
    assert front(network="mine")["NetworkingConfig"] == {
        "EndpointsConfig": {"mine": {"Aliases": ["iris"]}}
    }
    assert front()["NetworkingConfig"] == {}


def test_a_front_is_kept_for_what_it_does_not_depend_on() -> None:
    spec = specs.front_spec(parse({}), 80)
    assert specs.front_spec(parse({"memory": "1g", "workers": "3", "env.A": "b"}), 80) == spec
    others = [{"host": "0.0.0.0"}, {"network": "mine"}, {"tls_cert": "/c", "tls_key": "/k"}]
    assert len({spec, *(specs.front_spec(parse(each), 80) for each in others)}) == 4
    assert specs.front_spec(parse({}), 81) != spec


def test_where_selinux_keeps_containers_apart_a_deployment_has_one_level() -> None:
    engine = EngineFacts("podman", selinux=True)
    levels = {
        option
        for document in (worker(engine), front(engine))
        for option in document["HostConfig"]["SecurityOpt"]
        if option.startswith("label=")
    }
    assert len(levels) == 1
    low, high = levels.pop().removeprefix("label=level:s0:c").split(",c")
    assert 0 <= int(low) < int(high) <= 1023


def test_logs_end_somewhere() -> None:
    assert worker()["HostConfig"]["LogConfig"]["Config"]["max-size"] == "10m"
    assert "size=" in specs.run_options(DOCKER)["o"]
    assert "size=" not in specs.run_options(PODMAN)["o"]


def test_the_scripts_that_are_sent_need_nothing_but_python() -> None:
    for document in (worker(), front()):
        source = document["Entrypoint"][-1]
        assert "from serve" not in source
        assert "import serve" not in source
        assert len(source) < 20_000
        compile(source, "<sent>", "exec")
