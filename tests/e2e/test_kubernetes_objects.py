"""Exported objects in the hands of others: Podman runs the pod, Helm and Kustomize render them.

Podman's `kube play` takes the Deployment's pod as it is; the image comes from a registry, by its
digest. Twenty seconds, most of them the image's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from serve import Workspace
from tests.e2e.test_docker_target import CORPUS, PATHS, _asked
from tests.e2e.test_images import save_model
from tests.support.local import eventually, free_port
from tests.support.registry import DockerRegistry, is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import RunningEngine

pytestmark = pytest.mark.timeout(600)

MAIN = "from serve.cli.main import main; main()"


class Site:
    """A workspace with a package, and a registry that has its image."""

    def __init__(self, folder: Path, base: str, registry: DockerRegistry) -> None:
        self.folder = folder
        self.base = base
        self.registry = registry
        self.workspace = Workspace(folder / "workspace")
        save_model(folder / "twice.onnx")
        self.package = self.workspace.packages.build(
            self.workspace.models.register("twice", folder / "twice.onnx")
        )
        self.repository = f"{registry.host}/team/twice"

    def export(self, form: str, **settings: object) -> Path:
        """As a user does; the folder."""
        into = self.folder / f"{form}-{len(list(self.folder.iterdir()))}"
        given = {"registry": self.repository, "base": self.base, **settings}
        options = [f"--set={key}={value}" for key, value in given.items()]
        done = self.command(
            "deployment", "export", "--package", "twice", "--form", form, *options, str(into)
        )
        assert done["package"] == self.package.digest
        return into

    def command(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *arguments, "--json"],
            env=os.environ | {"FIELDPOST_WORKSPACE": str(self.folder / "workspace")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, base_rootfs: Path) -> Iterator[Site]:
    if not is_installed():
        pytest.skip("docker-registry is not installed")
    folder = tmp_path_factory.mktemp("kubernetes")
    registry = DockerRegistry(folder / "registry")
    registry.start()
    try:
        found = Site(folder, f"rootfs:{base_rootfs}", registry)
        found.workspace.packages.push(
            found.package, f"{found.repository}:1", base=found.base, attach=False
        )
        yield found
        found.workspace.close()
    finally:
        registry.stop()


class Played:
    """What `podman kube play` has made of a file."""

    def __init__(self, engine: RunningEngine, path: Path) -> None:
        self._engine, self._path = engine, path
        # Podman publishes a container's port on the machine's port of the same number, which may
        # be another's: a free one is the only change.
        with free_port() as port:
            documents = list(yaml.safe_load_all(path.read_text()))
        for each in documents:
            if each["kind"] == "Deployment":
                (container,) = each["spec"]["template"]["spec"]["containers"]
                container["ports"][0]["hostPort"] = port
        path.write_text(yaml.safe_dump_all(documents))
        self.url = f"http://127.0.0.1:{port}"
        self.said = engine.run("kube", "play", str(path), timeout_s=180)

    def container(self) -> dict[str, Any]:
        """The server's container, as Podman sees it."""
        names = self._engine.run("ps", "-a", "--format", "{{.Names}}").split()
        (name,) = [each for each in names if each.endswith("-server")]
        (found,) = json.loads(self._engine.run("inspect", name))
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        self._engine.run("kube", "play", "--down", str(self._path), timeout_s=120)


@pytest.fixture
def played(site: Site, podman_engine: RunningEngine) -> Iterator[Played]:
    # Podman makes as many pods, and all of them want the same port of the machine.
    (path,) = site.export("yaml", replicas=1).iterdir()
    found = Played(podman_engine, path)
    yield found
    found.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_podman_runs_the_pod_and_it_answers_as_everywhere(site: Site, played: Played) -> None:
    there = played.url
    eventually(lambda: _answers(there), 30)
    here = site.workspace.deploy("here", site.package.digest, target="local")
    try:
        for path in PATHS:
            for body in CORPUS:
                assert _asked(here.url + path, body) == _asked(there + path, body), (path, body)
        for path in ("/", "/v2", "/v2/models/twice", "/swagger.json", "/health/ready"):
            assert _asked(here.url + path) == _asked(there + path), path
    finally:
        site.workspace.deployments.stop("here")
        site.workspace.deployments.delete("here")
    container = played.container()
    assert container["ImageName"].startswith(f"{site.repository}@sha256:")
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["EffectiveCaps"] in (None, [])
    assert container["Config"]["User"] == "65532:65532"
    assert container["HostConfig"]["Memory"] > 0
    env = dict(item.partition("=")[::2] for item in container["Config"]["Env"])
    assert env["FIELDPOST_SERVER_JOBS_DIR"] == "/tmp/fieldpost-jobs"
