"""What only a real cluster can tell: that pods run, and answer as this machine does.

FIELDPOST_TEST_KUBECONFIG names the cluster; `kubernetes_registry` says from where it pulls.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest
import yaml

from scoring.errors import DeploymentFailedError
from serve.targets.kubernetes import rbac
from serve.targets.kubernetes.access import KUBECONFIG
from tests.support.kubernetes_double.controllers import Outcome
from tests.support.kubernetes_yard import REAL_TIMEOUT_S, ClusterYard, real_base, real_yard
from tests.support.local import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(REAL_TIMEOUT_S)

ANSWER = {"colours": ["blue", "gr\u00fcn"], "share": 0.1}


@pytest.fixture
def yard(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ClusterYard]:
    """A workspace and a namespace of its own."""
    with real_yard(tmp_path, monkeypatch, real_base(request)) as found:
        yield found


def _ask(yard: ClusterYard, name: str, data: dict[str, Any]) -> httpx2.Response:
    """Through the cluster's API, which passes requests on to Services."""
    service = f"api/v1/namespaces/{yard.namespace}/services/http:{name}:80/proxy/score"
    return yard.cluster._transport._client.http.post(service, json=data, timeout=60)


def _score(yard: ClusterYard, name: str, data: dict[str, Any]) -> bytes:
    """The API knows of pods that come and go a moment later than their status tells."""

    def answered() -> httpx2.Response | None:
        answer = _ask(yard, name, data)
        return None if answer.status_code in (502, 503, 504) else answer

    answer: httpx2.Response = eventually(answered, 120)
    answer.raise_for_status()
    return answer.content


def _says(yard: ClusterYard, answer: object) -> None:
    eventually(lambda: json.loads(_score(yard, "iris", {})) == answer, 120)


def test_a_pod_answers_as_this_machine_does(yard: ClusterYard) -> None:
    import httpx

    package = yard.package(ANSWER)
    local = yard.workspace.deploy("here", package, target="local")
    wanted = httpx.post(f"{local.url}/score", json={"a": 1}, timeout=30).content
    yard.workspace.deployments.stop("here")
    yard.deploy("iris", package, replicas=2)
    assert _score(yard, "iris", {"a": 1}) == wanted
    assert json.loads(wanted) == ANSWER


def test_a_broken_revision_leaves_the_old_one_answering(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package("old"), replicas=1)
    crash = Outcome("crash", exit_code=9, log=("farewell",))
    with pytest.raises(DeploymentFailedError, match="status 9") as caught:
        yard.deploy("iris", yard.package("new", crash), replicas=1)
    assert "farewell" in caught.value.detail
    _says(yard, "old")
    yard.deploy("iris", yard.package("newer"), replicas=1)
    _says(yard, "newer")


def test_a_pod_that_asks_for_too_much_memory_is_told(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package("old"), replicas=1)
    with pytest.raises(DeploymentFailedError, match="more memory"):
        yard.deploy("iris", yard.package("new", Outcome("oom")), replicas=1, memory_limit="512Mi")
    _says(yard, "old")


def test_an_image_that_is_not_there_is_told(yard: ClusterYard) -> None:
    image = f"{yard.registry()}@sha256:{'0' * 64}"
    with pytest.raises(DeploymentFailedError, match="cannot pull the image"):
        yard.deploy("iris", yard.package(1), image=image, registry=None, base=None)
    assert yard.names("Deployment", "iris") == set()


def test_logs_of_requests_are_followed(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1), replicas=1)
    stream = yard.workspace.deployments.logs("iris", follow=True)
    _score(yard, "iris", {"say": "hello"})
    assert eventually(lambda: "hello" in next(stream), 120)


def test_a_pod_that_is_killed_by_a_request_says_so_and_answers_again(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package("old"), replicas=1)
    _says(yard, "old")
    with contextlib.suppress(httpx2.HTTPError):
        _ask(yard, "iris", {"hog": True})
    view = eventually(lambda: (v := yard.view("iris")).restarts and v, 180)
    eventually(lambda: "more memory" in yard.view("iris").note, 180)
    assert view.revision == 1
    _says(yard, "old")


def _token(yard: ClusterYard) -> str:
    """Of the account that the printed Role is bound to."""
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"api/v1/namespaces/{yard.namespace}/serviceaccounts/{rbac.NAME}/token"
    answer = yard.cluster._transport._client.http.post(path, json=asked)
    answer.raise_for_status()
    return str(answer.json()["status"]["token"])


def _log_in(yard: ClusterYard, path: Path, token: str) -> None:
    """Writes a kubeconfig with that token alone."""
    cluster = msgspec.to_builtins(yard.cluster.access.config.cluster)
    document = {
        "current-context": "small",
        "clusters": [{"name": "small", "cluster": cluster}],
        "users": [{"name": "small", "user": {"token": token}}],
        "contexts": [{"name": "small", "context": {"cluster": "small", "user": "small"}}],
    }
    path.write_text(yaml.safe_dump(document))


def test_the_printed_role_is_enough(
    yard: ClusterYard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in rbac.objects(yard.namespace):
        yard.cluster.apply(each)
    _log_in(yard, tmp_path / "small", _token(yard))
    monkeypatch.setenv(KUBECONFIG, str(tmp_path / "small"))
    yard.deploy("iris", yard.package("old"), env__A="b", replicas=1, max_replicas=2)
    with pytest.raises(DeploymentFailedError, match="status 9"):
        yard.deploy("iris", yard.package("new", Outcome("crash", exit_code=9)), replicas=1)
    assert yard.view("iris").state == "running"
    assert list(yard.workspace.deployments.logs("iris"))
    yard.workspace.deployments.stop("iris")
    yard.workspace.deployments.start("iris")
    yard.workspace.deployments.stop("iris")
    yard.workspace.deployments.delete("iris")
    assert yard.names("Deployment", "iris") == set()
