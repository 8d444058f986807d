"""Exported objects in the hands of others: Podman runs the pod, Helm and Kustomize render them.

Podman's `kube play` takes the Deployment's pod as it is; the image comes from a registry, by its
digest. Half a minute, most of it the images'.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import yaml

from scoring.quantum import document
from serve import Workspace
from tests.e2e.test_docker_target import CORPUS, PATHS, _asked
from tests.e2e.test_images import save_model
from tests.e2e.test_quantum_targets import MODELS, answers, assert_right
from tests.support.circuits import rows_for
from tests.support.local import eventually, free_port
from tests.support.registry import DockerRegistry, is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from serve.registry.records import Package
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
        self.package = self.pushed(folder / "twice.onnx")
        self.repository = self.repository_of("twice")

    def repository_of(self, name: str) -> str:
        """Where the image of a package goes."""
        return f"{self.registry.host}/team/{name}"

    def pushed(self, path: Path) -> Package:
        """A package of this model, whose image is in the registry."""
        version = self.workspace.models.register(path.name.partition(".")[0], path)
        package = self.workspace.packages.build(version)
        reference = f"{self.repository_of(version.name)}:1"
        self.workspace.packages.push(package, reference, base=self.base, attach=False)
        return package

    def export(self, form: str, package: str = "twice", **settings: object) -> Path:
        """As a user does; the folder."""
        into = self.folder / f"{form}-{len(list(self.folder.iterdir()))}"
        given = {"registry": self.repository_of(package), "base": self.base, **settings}
        options = [f"--set={key}={value}" for key, value in given.items()]
        done = self.command(
            "deployment", "export", "--package", package, "--form", form, *options, str(into)
        )
        assert done["package"] == self.workspace.packages.get(package).digest
        return into

    @contextlib.contextmanager
    def local(self, package: Package) -> Iterator[str]:
        """The URL of a process on this machine that serves it."""
        here = self.workspace.deploy("here", package.digest, target="local")
        try:
            yield here.url
        finally:
            self.workspace.deployments.stop("here")
            self.workspace.deployments.delete("here")

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


@contextlib.contextmanager
def _played(site: Site, engine: RunningEngine, package: str) -> Iterator[Played]:
    # Podman makes as many pods, and all of them want the same port of the machine.
    (path,) = site.export("yaml", package, replicas=1).iterdir()
    found = Played(engine, path)
    try:
        eventually(lambda: _answers(found.url), 30)
        yield found
    finally:
        found.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_podman_runs_the_pod_and_it_answers_as_everywhere(
    site: Site, podman_engine: RunningEngine
) -> None:
    with _played(site, podman_engine, "twice") as played, site.local(site.package) as here:
        for path in PATHS:
            for body in CORPUS:
                assert _asked(here + path, body) == _asked(played.url + path, body), (path, body)
        for path in ("/", "/v2", "/v2/models/twice", "/swagger.json", "/health/ready"):
            assert _asked(here + path) == _asked(played.url + path), path
        container = played.container()
    assert container["ImageName"].startswith(f"{site.repository}@sha256:")
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["EffectiveCaps"] in (None, [])
    assert container["Config"]["User"] == "65532:65532"
    assert container["HostConfig"]["Memory"] > 0
    env = dict(item.partition("=")[::2] for item in container["Config"]["Env"])
    assert env["FIELDPOST_SERVER_JOBS_DIR"] == "/tmp/fieldpost-jobs"


@pytest.mark.parametrize("name", ["n7", "rest"])
def test_a_circuit_in_a_pod_answers_as_everywhere(
    site: Site, podman_engine: RunningEngine, name: str
) -> None:
    document.save(MODELS[name], site.folder / f"{name}.circuit.json")
    package = site.pushed(site.folder / f"{name}.circuit.json")
    with _played(site, podman_engine, name) as played, site.local(package) as here:
        found, wanted = (_circuits_answers(url, name) for url in (played.url, here))
        scored, from_here = (answers(url, MODELS[name]) for url in (played.url, here))
    assert scored == from_here  # to the last bit: the same bytes run
    assert [status for status, _ in scored] == [200] * 4 + [400] * 6
    assert_right(MODELS[name], scored[0][1])
    assert found == wanted
    assert_right(MODELS[name], found["v2"])
    assert_right(MODELS[name], found["grpc"])


def _circuits_answers(url: str, name: str) -> dict[str, Any]:
    """What the other protocols answer to the same rows, and which circuit they name."""
    rows = rows_for(MODELS[name], 24)
    tensor = {"name": "X", "datatype": "FP64", "shape": list(rows.shape), "data": rows.tolist()}
    answer = httpx.post(f"{url}/v2/models/{name}/infer", json={"inputs": [tensor]}, timeout=60)
    told = httpx.get(f"{url}/v2/models/{name}").json()
    assert told["parameters"] == {"fieldpost.circuit": document.digest(MODELS[name])}
    outputs = {each["name"]: each for each in answer.json()["outputs"]}
    v2 = {key: np.reshape(each["data"], each["shape"]).tolist() for key, each in outputs.items()}
    return {"v2": v2, "grpc": _by_grpc(url, name, rows), "metadata": told}


def _by_grpc(url: str, name: str, rows: NDArray[np.float64]) -> dict[str, Any]:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    given = triton.InferInput("X", list(rows.shape), "FP64")
    given.set_data_from_numpy(rows)
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        answer = client.infer(name, [given], client_timeout=60)
    found = {key: answer.as_numpy(key).tolist() for key in ("predictions", "probabilities")}
    words = [each.decode() if isinstance(each, bytes) else each for each in found["predictions"]]
    return found | {"predictions": words}


def test_what_was_exported_says_what_to_do_next(site: Site) -> None:
    image = f"{site.repository}@sha256:{'a' * 64}"
    said = site.command(
        *("deployment", "export", "--package", "twice", "--set", f"image={image}"),
        *("--set", "env.TOKEN=open sesame", "--dry-run", "--form", "helm"),
        *("renamed", str(site.folder / "nowhere")),
    )
    assert said["name"] == "renamed"
    assert said["image"] == image
    assert said["next"][0].startswith("kubectl create secret generic renamed-env")
    assert "open sesame" not in str(said)
    assert not (site.folder / "nowhere").exists()


def test_a_deployment_is_exported_with_its_settings(site: Site) -> None:
    given = {"rate_limit": "5000", "workers": "2"}
    site.workspace.deploy("there", site.package.digest, target="local", settings=given)
    try:
        folder = site.folder / "of-deployment"
        options = [f"--set=registry={site.repository}", f"--set=base={site.base}"]
        said = site.command("deployment", "export", "there", *options, str(folder))
    finally:
        site.workspace.deployments.stop("there")
        site.workspace.deployments.delete("there")
    assert said["left_out"] == ["workers"]
    objects = {
        each["kind"]: each for each in yaml.safe_load_all((folder / "there.yaml").read_text())
    }
    assert objects["ConfigMap"]["data"]["FIELDPOST_SERVER_RATE_LIMIT"] == "5000.0"
    assert objects["Deployment"]["metadata"]["labels"]["fieldpost.dev/model"] == "twice"


@pytest.fixture(scope="module")
def ray_python() -> Path:
    """A Python with `ray[serve]`: too large for the environment of the other tests."""
    named = os.environ.get("FIELDPOST_TEST_RAY", "")
    if not named:
        pytest.skip("FIELDPOST_TEST_RAY names no Python with ray[serve]")
    return Path(named)


def test_ray_serves_the_package_and_it_answers_as_everywhere(site: Site, ray_python: Path) -> None:
    folder = site.export("ray", replicas=1, cpu="100m", memory="128Mi")
    with free_port() as port:
        config = yaml.safe_load((folder / "serve.yaml").read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    there = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [ray_python.parent / "serve", "run", "serve.yaml"],
        cwd=folder,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
        start_new_session=True,
    )
    try:
        eventually(lambda: _answers(there), 120)
        with site.local(site.package) as here:
            for path in PATHS:
                for body in CORPUS:
                    assert _as_told(here + path, body) == _as_told(there + path, body), path
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _as_told(url: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
    """Ray's own proxy tells who it is, and the request's name."""
    status, content, headers = _asked(url, body)
    kept = {key: text for key, text in headers.items() if key not in ("server", "x-request-id")}
    return status, content, kept
