"""Whose an object is, and what is deleted: two proofs, or it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import AlreadyExistsError
from serve.targets.kubernetes.access import find_access
from serve.targets.kubernetes.client import Cluster
from serve.targets.kubernetes.diff import difference, shown
from serve.targets.kubernetes.ownership import Owner, others_own, owns_field, require_ours
from serve.targets.kubernetes.prune import prune
from tests.support.kubernetes_double.server import KubernetesDouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWNER = Owner("team", "iris")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with KubernetesDouble() as double:
        config = double.kubeconfig(tmp_path / "kubeconfig")
        with Cluster(find_access(environment={"KUBECONFIG": str(config)})) as found:
            yield found


def _item(
    name: str = "one", labels: dict[str, str] | None = None, **metadata: Any
) -> dict[str, Any]:
    labels = OWNER.labels if labels is None else labels
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels, **metadata},
    }


def test_what_is_not_wanted_goes_and_nothing_else(cluster: Cluster) -> None:
    other = Owner("team", "other").labels
    controller = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "name": "iris",
        "uid": "1",
        "controller": True,
    }
    cluster.apply(_item("wanted"))
    cluster.apply(_item("left-over"))
    cluster.apply(_item("of-another-deployment", other))
    cluster.apply(_item("of-another-workspace", Owner("others", "iris").labels))
    cluster.apply(_item("labelled-by-hand"), manager="kubectl")
    cluster.create(_item("made-otherwise"))
    cluster.apply(_item("of-a-controller", ownerReferences=[controller]))
    said: list[str] = []
    assert prune(cluster, OWNER, [_item("wanted")], said.append) == ["ConfigMap left-over"]
    assert said == ["removed ConfigMap left-over"]
    left = {each["metadata"]["name"] for each in cluster.list("ConfigMap").items}
    assert len(left) == 6
    assert prune(cluster, OWNER, [_item("wanted")], said.append) == []


def test_objects_of_others_are_refused_with_what_is_known_of_them() -> None:
    require_ours(_item(), None, OWNER, "The cluster")
    require_ours(_item(), _item(), OWNER, "The cluster")
    for labels, words in (
        ({}, "not of this deployment"),
        ({"app.kubernetes.io/managed-by": "Helm"}, "managed by 'Helm'"),
        (Owner("others", "iris").labels, "of the deployment 'iris' of another workspace"),
    ):
        with pytest.raises(AlreadyExistsError, match=words):
            require_ours(_item(), _item(labels=labels), OWNER, "The cluster")


def test_owners_of_fields() -> None:
    tree: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    item = {
        "metadata": {
            "managedFields": [
                {"manager": "fieldpost", "operation": "Apply", "fieldsV1": tree},
                {"manager": "hpa", "operation": "Update", "fieldsV1": tree},
            ]
        }
    }
    assert owns_field(item, "spec", "replicas")
    assert not owns_field(item, "spec", "paused")
    assert others_own(item, "spec", "replicas")
    assert not owns_field({}, "spec")


def test_differences_hide_secrets_and_what_the_cluster_writes() -> None:
    def secret(value: str, **metadata: Any) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", **metadata},
            "data": {"KEY": value},
        }

    same = difference(secret("YQ==", resourceVersion="1"), secret("YQ==", uid="2"))
    assert same.change == "none"
    assert (
        shown([same])
        == "Nothing would change but the number of the revision: the same pods, started anew."
    )
    changed = difference(secret("YQ=="), secret("Yg=="))
    assert changed.change == "update"
    text = shown([changed])
    assert "YQ==" not in text
    assert "Yg==" not in text
    assert "*** (old)" in text
    assert "*** (new)" in text
    assert difference(None, secret("YQ==")).change == "create"
    assert difference(secret("YQ=="), None).change == "delete"
