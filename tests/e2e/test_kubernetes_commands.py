"""The commands of a user: with a real registry, and the double behind a kubeconfig."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from serve.cli.main import run
from serve.targets.kubernetes.rbac import allowed
from tests.support import registry as registries
from tests.support.kubernetes_yard import ClusterYard, double_yard
from tests.support.smallbases import write_layout
from tests.support.tiny_registry import TinyRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterYard]:
    """A workspace and the double."""
    with double_yard(tmp_path, monkeypatch) as found:
        monkeypatch.setenv("FIELDPOST_WORKSPACE", str(tmp_path / "workspace"))
        yield found


class Output(NamedTuple):
    """What a command has printed."""

    stdout: str
    stderr: str


class Shell:
    """Runs commands within this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str, status: int = 0) -> Output:
        self._capture.readouterr()
        found = run(arguments)
        output = Output(*self._capture.readouterr())
        assert found == status, f"{output.stdout}\n{output.stderr}"
        return output


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """For commands."""
    return Shell(capsys)


def _deploy(yard: ClusterYard, *more: str, answer: object = 1, **settings: Any) -> list[str]:
    given = yard.settings(**settings)
    sets = [part for key, text in given.items() for part in ("--set", f"{key}={text}")]
    head = ["deploy", "iris", "--package", yard.package(answer).digest]
    return [*head, "--target", "kubernetes", *sets, *more]


def test_a_dry_run_prints_objects_that_can_be_applied(shell: Shell, yard: ClusterYard) -> None:
    text = shell(*_deploy(yard, "--dry-run")).stdout
    kinds = [each["kind"] for each in yaml.safe_load_all(text)]
    assert kinds[-1] == "PodDisruptionBudget"
    document = json.loads(shell(*_deploy(yard, "--dry-run", "--json")).stdout)
    assert [each["kind"] for each in document["objects"]] == kinds
    assert document["revision"] == 1
    assert yard.names("ServiceAccount", "iris") == set()
    for each in document["objects"]:
        yard.cluster.apply(each, manager="kubectl", dry_run=True)


def test_a_difference_is_read_by_people_and_programs(shell: Shell, yard: ClusterYard) -> None:
    assert "Deployment iris would be made:" in shell(*_deploy(yard, "--diff")).stdout
    shell(*_deploy(yard))
    text = shell(*_deploy(yard, "--diff", memory="1Gi")).stdout
    assert "Deployment iris would change:" in text
    assert "+            memory: " in text
    document = json.loads(shell(*_deploy(yard, "--diff", "--json", answer=2)).stdout)
    assert {each["change"] for each in document["objects"]} == {"update"}
    document = json.loads(shell(*_deploy(yard, "--diff", "--json")).stdout)
    assert {each["change"] for each in document["objects"]} == {"none"}
    assert "Nothing would change but the number" in shell(*_deploy(yard, "--diff")).stdout


def test_other_targets_have_nothing_to_compare(shell: Shell, yard: ClusterYard) -> None:
    digest = yard.package(1).digest
    found = shell("deploy", "iris", "--package", digest, "--diff", status=2)
    assert "--dry-run" in found.stderr


def test_a_deployment_through_all_its_commands(shell: Shell, yard: ClusterYard) -> None:
    assert "iris revision 1 is running at http://iris.default.svc" in shell(*_deploy(yard)).stdout
    assert "ready" in shell("deployment", "show", "iris").stdout
    assert "with 3 workers" in shell("deployment", "scale", "iris", "3").stdout
    assert len(json.loads(shell("deployment", "show", "iris", "--json").stdout)["workers"]) == 3
    assert "r1/" in shell("deployment", "logs", "iris", "-n", "1").stdout
    shell(*_deploy(yard, answer=2))
    assert "revision 3 is running" in shell("deployment", "rollback", "iris").stdout
    assert "stopped" in shell("deployment", "stop", "iris").stdout
    assert "running" in shell("deployment", "start", "iris").stdout
    shell("deployment", "stop", "iris")
    shell("deployment", "delete", "iris")
    assert yard.names("Service", "iris") == set()


def test_conflicts_are_shown_and_forced(shell: Shell, yard: ClusterYard) -> None:
    shell(*_deploy(yard))
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris"},
        "spec": {"revisionHistoryLimit": 7},
    }
    yard.cluster.apply(theirs, manager="gitops", force=True)
    found = shell(*_deploy(yard), status=1)
    assert ".spec.revisionHistoryLimit (gitops)" in found.stderr
    assert "--force-conflicts" in found.stderr
    shell(*_deploy(yard, "--force-conflicts"))


def test_an_image_is_pushed_where_it_is_not_there(
    shell: Shell, yard: ClusterYard, tmp_path: Path
) -> None:
    if not registries.is_installed():
        pytest.skip("docker-registry is not installed")
    write_layout(tmp_path / "base")
    with registries.running(tmp_path / "registry") as registry:
        place = f"{registry.host}/team/iris"
        given = {"image": None, "registry": place, "base": f"oci:{tmp_path / 'base'}"}
        first = shell(*_deploy(yard, **given)).stderr
        assert "pushing the image" in first
        assert "sent" in first
        assert "sent" not in shell(*_deploy(yard, **given)).stderr
        pod = yard.cluster.get("Deployment", "iris")["spec"]["template"]["spec"]
        image = pod["containers"][0]["image"]
        assert image.startswith(f"{place}@sha256:")
    # The registry is gone, and with it nothing that a start needs.
    shell("deployment", "stop", "iris")
    shell("deployment", "start", "iris")
    pod = yard.cluster.get("Deployment", "iris")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == image


def test_a_registry_must_be_named(shell: Shell, yard: ClusterYard) -> None:
    found = shell(*_deploy(yard, image=None), status=2)
    assert "registry=REGISTRY/NAME" in found.stderr
    assert yard.workspace.registry.deployments.list() == ()


def test_a_registry_that_refuses_changes_nothing(
    shell: Shell, yard: ClusterYard, tmp_path: Path
) -> None:
    write_layout(tmp_path / "base")
    with TinyRegistry(users={"me": "right"}) as registry:
        given = {"registry": f"{registry.host}/a/b", "base": f"oci:{tmp_path / 'base'}"}
        shell(*_deploy(yard, image=None, **given), status=1)
    assert yard.names("ServiceAccount", "iris") == set()


def test_this_machine_s_login_becomes_a_secret_on_request(
    shell: Shell, yard: ClusterYard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "docker"
    folder.mkdir()
    token = base64.b64encode(b"me:s3cret").decode()
    login = {"auths": {"registry.example": {"auth": token}}}
    (folder / "config.json").write_text(json.dumps(login))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    preview = shell(*_deploy(yard, "--dry-run", pull_login="true")).stdout
    assert token not in preview
    shell(*_deploy(yard, pull_login="true"))
    secret = yard.cluster.get("Secret", "iris-pull")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    document = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert document["auths"]["registry.example"]["password"] == "s3cret"
    pod = yard.cluster.get("Deployment", "iris")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "iris-pull"}]
    shell(*_deploy(yard))
    assert yard.names("Secret", "iris") == set()
    (folder / "config.json").write_text("{}")
    found = shell(*_deploy(yard, pull_login="true"), status=1)
    assert "docker login registry.example" in found.stderr


def test_the_printed_role_is_enough(shell: Shell, yard: ClusterYard) -> None:
    rights = {
        (verb, resource) for each in allowed() for resource in each.resources for verb in each.verbs
    }
    assert yard.double is not None
    refused: list[tuple[str, str]] = []

    def denied(_user: str, verb: str, resource: str, _space: str) -> bool:
        if (verb, resource) not in rights:
            refused.append((verb, resource))
        return (verb, resource) not in rights

    yard.double.api.denied = denied
    shell(*_deploy(yard, env__A="b", max_replicas=4))
    shell(*_deploy(yard, "--diff"))
    shell(*_deploy(yard, replicas=1))
    shell("deployment", "scale", "iris", "2")
    shell("deployment", "show", "iris")
    shell("deployment", "logs", "iris")
    shell("deployment", "stop", "iris")
    shell("deployment", "delete", "iris")
    yard.double.api.denied = lambda *_: False
    assert refused == []
