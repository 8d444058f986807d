"""The Dockerfile road: images that real builders make of packages, run by real engines.

About 70 s on a quiet machine: three builders and three bases.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scoring.packages.unpack import unpack_package
from serve import Workspace
from serve.packaging.builders import BuiltImage
from tests.support import builders
from tests.support.builders import Builder
from tests.support.doubling import doubling_workspace
from tests.support.local import eventually, free_port

FIELDPOST = Path(sys.executable).parent / "fieldpost"
DOCKERFILES = Path(__file__).parents[2] / "dockerfiles"
BASE = "localhost/fieldpost-tests/base:1"
pytestmark = pytest.mark.timeout(300)

# Good and bad, of each protocol, and none.
REQUESTS: tuple[tuple[str, str, bytes], ...] = (
    ("POST", "/score", b'{"data": [[1, 2], [0.1, -3e4]]}'),
    ("POST", "/score", b'{"data": [[1]]}'),
    ("POST", "/score", b'{"data": [["a", "b"]]}'),
    ("POST", "/score", b"{"),
    ("POST", "/score", b""),
    ("GET", "/score", b""),
    ("POST", "/nowhere", b"{}"),
    ("GET", "/v2", b""),
    ("GET", "/v2/models/twice", b""),
    (
        "POST",
        "/v2/models/twice/infer",
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.1, 7]}]}',
    ),
    ("POST", "/v2/models/twice/infer", b'{"inputs": []}'),
    ("GET", "/openapi.json", b""),
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the package of a model that doubles."""
    return doubling_workspace(tmp_path_factory.mktemp("dockerfiles"))


@pytest.fixture(scope="module")
def package(workspace: Path) -> str:
    with Workspace(workspace) as opened:
        return opened.packages.get("twice").digest


@pytest.fixture(scope="module")
def expected(workspace: Path, package: str) -> Iterator[list[Any]]:
    """What the same package answers on this machine."""
    with Workspace(workspace) as opened:
        root = unpack_package(package, opened.registry.blobs, workspace / "unpacked")
    boot = root / "runtime" / "scoring" / "boot.py"
    with free_port() as port:
        pass
    settings = {"FIELDPOST_SERVER_HOST": "127.0.0.1", "FIELDPOST_SERVER_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", str(boot), str(root)], env=settings
    )
    try:
        eventually(lambda: builders.is_ready(port))
        yield answers(port)
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> list[Any]:
    """Status, body and headers of every request, without what differs each time."""
    found = []
    for method, path, body in REQUESTS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            kept = {k: v for k, v in headers.items() if k not in {"date", "x-ms-request-id"}}
            found.append((method, path, response.status, response.read(), sorted(kept.items())))
    return found


@pytest.fixture(scope="module")
def storage() -> Iterator[Mapping[str, str]]:
    with builders.containers_storage() as environment:
        yield environment


@pytest.fixture(scope="module", params=["docker", "buildah", "podman"])
def builder(request: pytest.FixtureRequest, base_rootfs: Path) -> Builder:
    """Each builder, with the base imported into its store."""
    if why := builders.missing(request.param):
        pytest.skip(why)
    if request.param == "docker":
        made = builders.docker(request.getfixturevalue("docker_engine"))
    else:
        made = Builder(request.param, "podman", request.getfixturevalue("storage"))
    made.call("import", str(base_rootfs), BASE)
    return made


def run_command(
    workspace: Path, builder: Builder, *arguments: str | Path, expect: int = 0
) -> dict[str, Any]:
    """Runs one command with a builder's environment; its document, and what it wrote beside."""
    done = subprocess.run(
        [str(FIELDPOST), *map(str, arguments), "--json"],
        env={**builder.environment, "FIELDPOST_WORKSPACE": str(workspace)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    return {**json.loads(done.stdout), "stderr": done.stderr}


@pytest.fixture(scope="module")
def made(builder: Builder, workspace: Path) -> dict[str, Any]:
    """What `package build --builder` prints."""
    return run_command(
        workspace, builder, "package", "build", "twice", "--builder", builder.name, "--base", BASE
    )


@pytest.fixture
def build(
    builder: Builder, workspace: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], BuiltImage]:
    """Builds the image of the package that is there, on a base."""
    for name, value in builder.environment.items():
        monkeypatch.setenv(name, value)

    def call(base: str) -> BuiltImage:
        with Workspace(workspace) as opened:
            found = opened.packages.get(package)
            return opened.packages.build_image(found, builder.name, base=base)

    return call


def test_a_built_image_answers_as_the_package_does(
    made: dict[str, Any], builder: Builder, expected: list[Any]
) -> None:
    with builder.running(made["image"]["name"]) as port:
        assert answers(port) == expected


def test_a_built_image_is_what_the_package_says(made: dict[str, Any], builder: Builder) -> None:
    # By its id: the same package on another base, in any order of the tests, takes the name over.
    image = builder.inspect(made["image"]["id"])
    config, digest = image["Config"], made["digest"]

    assert made["image"]["package"] == digest
    assert made["image"]["name"] == f"fieldpost/twice:{digest[7:19]}"
    assert config["Labels"]["dev.fieldpost.package"] == digest
    assert config["Labels"]["org.opencontainers.image.base.name"] == BASE
    assert (config["User"], config["StopSignal"]) == ("65532:65532", "SIGTERM")
    assert config["WorkingDir"] == "/opt/fieldpost"
    assert config["Entrypoint"][-1] == "/opt/fieldpost"
    assert not config.get("Cmd")
    assert "probe.py" in str(config.get("Healthcheck", image))


def test_building_again_gives_the_same_image(
    build: Callable[[str], BuiltImage], builder: Builder
) -> None:
    first = build(BASE)
    named = builder.inspect(first.name)["Id"]

    assert named.removeprefix("sha256:") == first.id.removeprefix("sha256:")
    assert build(BASE) == first


@pytest.mark.parametrize("builder", ["docker"], indirect=True)
def test_the_written_folder_builds_by_hand(
    workspace: Path, builder: Builder, expected: list[Any], base_rootfs: Path, tmp_path: Path
) -> None:
    base, folder = f"rootfs:{base_rootfs}", tmp_path / "context"
    run_command(workspace, builder, "package", "dockerfile", "twice", folder, "--base", base)

    builder.build(folder, "by-hand:1")

    with builder.running("by-hand:1") as port:
        assert answers(port) == expected


@pytest.mark.parametrize("builder", ["docker", "buildah"], indirect=True)
@pytest.mark.parametrize("kind", ["slim", "edge"])
def test_packages_run_on_the_bases_without_a_shell(
    build: Callable[[str], BuiltImage], builder: Builder, expected: list[Any], kind: str
) -> None:
    tag = f"localhost/fieldpost-tests/{kind}:1"
    dockerfile = DOCKERFILES / kind / "Dockerfile"
    builder.build(DOCKERFILES, tag, "--file", str(dockerfile), "--build-arg", f"PYTHON={BASE}")
    shell = subprocess.run(  # which no engine finds
        [builder.engine, "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", tag],
        env=dict(builder.environment),
        capture_output=True,
        check=False,
    )

    with builder.running(build(tag).name) as port:
        assert answers(port) == expected
    assert shell.returncode == 127  # as shells and engines say that there is no such program
    assert builder.inspect(tag)["Size"] < 60_000_000
    assert builder.inspect(tag)["Config"]["User"] == "65532:65532"


def test_a_builders_failure_shows_its_last_lines(workspace: Path, builder: Builder) -> None:
    document = run_command(
        workspace,
        builder,
        *("package", "build", "twice", "--builder", builder.name),
        *("--base", "localhost:1/nothing/here:1"),
        expect=1,
    )

    assert document["error"]["code"] == "packaging"
    assert builder.name in document["error"]["message"]
    assert "localhost:1" in document["stderr"].partition("Error:")[2]


def test_a_builder_that_is_not_installed(workspace: Path, tmp_path: Path) -> None:
    nowhere = Builder("podman", "podman", {**os.environ, "PATH": str(tmp_path)})

    command = ("package", "build", "twice", "--builder", "podman")

    document = run_command(workspace, nowhere, *command, expect=2)

    assert "not installed" in document["error"]["message"]


def test_nothing_is_left_in_the_workspace(workspace: Path) -> None:
    work = workspace / "cache" / "work"

    assert not work.exists() or list(work.glob("*")) == []
