"""kubectl beside us on the double: a client that we did not write judges it, and what we apply."""

from __future__ import annotations

import base64
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from serve.targets.kubernetes.access import KUBECONFIG
from tests.support.certificates import api_tls
from tests.support.kubernetes_double.server import KubernetesDouble
from tests.support.kubernetes_yard import ClusterYard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterYard]:
    """A workspace on the double with TLS: kubectl shows no login without it."""
    tls = api_tls(tmp_path)
    with KubernetesDouble(tls) as double:
        monkeypatch.setenv(KUBECONFIG, str(_kubeconfig(tmp_path, double)))
        monkeypatch.setenv("HOME", str(tmp_path))
        found = ClusterYard(tmp_path, double)
        try:
            yield found
        finally:
            found.close()


def _kubeconfig(folder: Path, double: KubernetesDouble) -> Path:
    path = double.kubeconfig(folder / "kubeconfig")
    document = yaml.safe_load(path.read_text())
    data = {
        name: base64.b64encode((folder / name).read_bytes()).decode()
        for name in ("ca.pem", "me.pem", "me.key")
    }
    document["clusters"][0]["cluster"]["certificate-authority-data"] = data["ca.pem"]
    document["users"][0]["user"] = {
        "client-certificate-data": data["me.pem"],
        "client-key-data": data["me.key"],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def _kubectl(*arguments: str, status: int = 0, given: str = "") -> str:
    done = subprocess.run(
        ["kubectl", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_kubectl_sees_what_we_deploy(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1), replicas=2)
    assert "successfully rolled out" in _kubectl("rollout", "status", "deployment/iris")
    names = _kubectl(
        "get", "deployments,services,pods", "-l", "fieldpost.dev/deployment=iris", "-o", "name"
    )
    assert {"deployment.apps/iris", "service/iris"} <= set(names.split())
    assert names.count("pod/") == 2
    assert "ready" in _kubectl("logs", "deployment/iris", "-c", "server", "--tail=1")


def test_kubectl_applies_our_dry_run_and_is_told_of_conflicts(yard: ClusterYard) -> None:
    objects = yard.workspace.deployments.preview(
        "iris", yard.package(1), target="kubernetes", settings=yard.settings()
    )
    assert objects is not None
    text = yaml.safe_dump_all(objects)
    server_side = ("apply", "--server-side", "--validate=false", "-f", "-")
    assert "deployment.apps/iris serverside-applied" in _kubectl(*server_side, given=text)
    text = text.replace("revisionHistoryLimit: 3", "revisionHistoryLimit: 5")
    said = _kubectl(*server_side, "--field-manager=other", given=text, status=1)
    assert "conflict" in said
    assert ".spec.revisionHistoryLimit" in said
    _kubectl("delete", "--ignore-not-found", "-f", "-", given=text)


def test_a_rollout_goes_on_beside_kubectl(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1), replicas=1)
    _kubectl("annotate", "service", "iris", "example.com/owner=kubectl")
    yard.deploy("iris", yard.package(2), replicas=1)
    found = yard.cluster.get("Service", "iris")["metadata"]["annotations"]
    assert found["example.com/owner"] == "kubectl"
