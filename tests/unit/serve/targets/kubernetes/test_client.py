"""The client over HTTP: what it asks, how patient it is, what it makes of answers."""

from __future__ import annotations

import base64
import threading
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from scoring.errors import TargetError, UnreachableError, UsageError
from serve.targets.kubernetes.access import find_access
from serve.targets.kubernetes.client import Cluster
from serve.targets.kubernetes.faults import (
    BusyError,
    ChangedError,
    DeniedError,
    FieldConflictError,
    GoneError,
    MissingError,
)
from serve.targets.kubernetes.kinds import Kind, kind_of, title_of
from serve.targets.kubernetes.watching import Doorbell
from tests.support.certificates import api_tls
from tests.support.kubernetes_double.answers import StatusError
from tests.support.kubernetes_double.server import KubernetesDouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.kubernetes_double.api import Ask


@pytest.fixture
def double() -> Iterator[KubernetesDouble]:
    with KubernetesDouble() as found:
        yield found


@pytest.fixture
def cluster(double: KubernetesDouble, tmp_path: Path) -> Iterator[Cluster]:
    config = double.kubeconfig(tmp_path / "kubeconfig")
    access = find_access(environment={"KUBECONFIG": str(config)})
    with Cluster(access, patience_s=2.0) as found:
        yield found


def _config(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"team": "a"}},
        "data": data,
    }


def test_objects_come_and_go(cluster: Cluster) -> None:
    made = cluster.apply(_config("one", a="b"))
    assert made["metadata"]["namespace"] == "default"
    assert cluster.get("ConfigMap", "one")["data"] == {"a": "b"}
    assert cluster.delete("ConfigMap", "one")
    assert not cluster.delete("ConfigMap", "one")
    assert cluster.find("ConfigMap", "one") is None
    with pytest.raises(MissingError, match='configmaps "one" not found'):
        cluster.get("ConfigMap", "one")


def test_a_dry_run_stores_nothing(cluster: Cluster) -> None:
    assert cluster.apply(_config("one", a="b"), dry_run=True)["data"] == {"a": "b"}
    assert cluster.find("ConfigMap", "one") is None


def test_what_is_there_is_not_created(cluster: Cluster) -> None:
    cluster.create(_config("one"))
    with pytest.raises(ChangedError, match="already exists"):
        cluster.create(_config("one"))


def test_a_patch_takes_a_field_away(cluster: Cluster) -> None:
    cluster.apply(_config("one", a="b", c="d"))
    found = cluster.patch("ConfigMap", "one", {"data": {"a": None}})
    assert found["data"] == {"c": "d"}


def test_lists_come_in_pages(
    cluster: Cluster, double: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.targets.kubernetes.client._PAGE", 2)
    for number in range(5):
        cluster.apply(_config(f"c{number}"))
    found = cluster.list("ConfigMap", labels={"team": "a"})
    assert [each["metadata"]["name"] for each in found.items] == [f"c{n}" for n in range(5)]
    assert {each["kind"] for each in found.items} == {"ConfigMap"}
    assert sum(each.endswith("/configmaps") for each in double.requests) == 3
    assert cluster.list("ConfigMap", labels={"team": "b"}).items == []
    assert cluster.list("ConfigMap", fields="metadata.name=c3").items[0]["data"] == {}


def test_a_list_whose_pages_are_too_old_begins_anew(
    cluster: Cluster, double: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.targets.kubernetes.client._PAGE", 2)
    for number in range(3):
        cluster.apply(_config(f"c{number}"))
    once = iter([True])

    def fault(ask: Ask) -> str | None:
        if ask.query.get("continue") and next(once, False):
            raise StatusError(410, "the provided continue parameter is too old")
        return None

    double.fault = fault
    assert len(cluster.list("ConfigMap", labels="team in (a, b)").items) == 3


def test_only_the_very_object_is_deleted(cluster: Cluster) -> None:
    cluster.apply(_config("one"))
    assert not cluster.delete("ConfigMap", "one", uid="another")
    assert cluster.find("ConfigMap", "one") is not None


def test_a_watch_tells_changes_and_ends(cluster: Cluster) -> None:
    version = cluster.list("ConfigMap").version
    cluster.apply(_config("one"))
    cluster.apply(_config("one", a="b"))
    cluster.delete("ConfigMap", "one")
    events = list(cluster.watch("ConfigMap", version, timeout_s=1))
    told = [each.type for each in events if each.type != "BOOKMARK"]
    assert told == ["ADDED", "MODIFIED", "DELETED"]


def test_a_watch_from_too_long_ago(cluster: Cluster, double: KubernetesDouble) -> None:
    double.store.forget_changes()
    with pytest.raises(GoneError, match="too old"):
        list(cluster.watch("ConfigMap", "1", timeout_s=1))


def test_a_doorbell_rings_for_changes_and_hears_after_410(
    cluster: Cluster, double: KubernetesDouble
) -> None:
    with Doorbell(cluster, ("ConfigMap",), {"team": "a"}) as bell:
        bell.wait(5)
        double.store.forget_changes()
        for round_ in range(3):
            assert _rings(bell, cluster, round_)


def _rings(bell: Doorbell, cluster: Cluster, round_: int) -> bool:
    """Whether it rings while something changes; a watch may just be beginning again."""
    rang = threading.Event()

    def wait() -> None:
        bell.wait(30)
        rang.set()

    thread = threading.Thread(target=wait)
    thread.start()
    for number in range(200):
        cluster.apply(_config("one", a=f"{round_}-{number}"))
        if rang.wait(0.05):
            break
    thread.join()
    return rang.is_set()


def test_what_breaks_for_a_moment_is_asked_again(
    cluster: Cluster, double: KubernetesDouble
) -> None:
    faults = iter(["drop", "busy", "drop"])

    def fault(_ask: Ask) -> str | None:
        now = next(faults, None)
        if now == "busy":
            raise StatusError(429, "too many requests", details={"retryAfterSeconds": 0.1})
        return now

    double.fault = fault
    assert cluster.version() == "v1.36.0-double"


def test_what_stays_broken_is_told(cluster: Cluster, double: KubernetesDouble) -> None:
    double.fault = lambda _ask: "drop"
    with pytest.raises(UnreachableError, match="The cluster of the context 'double' does not"):
        cluster.version()

    def busy(_ask: Ask) -> str | None:
        raise StatusError(503, "not now")

    double.fault = busy
    with pytest.raises(BusyError, match="not now"):
        cluster.version()


def test_a_refusal_is_not_asked_again(cluster: Cluster, double: KubernetesDouble) -> None:
    double.api.denied = lambda *_: True
    with pytest.raises(DeniedError, match=r"patch configmaps in the namespace 'default'"):
        cluster.apply(_config("one"))
    assert len(double.requests) == 1


def test_kinds_that_the_cluster_knows(cluster: Cluster, double: KubernetesDouble) -> None:
    assert cluster.has("Deployment")
    assert cluster.has("ConfigMap")
    assert not cluster.has("HTTPRoute")
    double.store.extend()
    assert cluster.has("HTTPRoute")
    assert not cluster.has(Kind("apps/v9", "Deployment", "deployments"))


def test_kinds_that_fieldpost_does_not_know() -> None:
    with pytest.raises(UsageError, match="'Gizmo'"):
        kind_of({"apiVersion": "v1", "kind": "Gizmo"})
    item = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "iris"}}
    assert kind_of(item).resource == "deployments.apps"
    assert title_of(item) == "Deployment iris"


def test_fields_of_several_managers(cluster: Cluster) -> None:
    cluster.apply(_config("one", a="b"))
    cluster.apply(_config("one", c="d"), manager="other")
    assert cluster.get("ConfigMap", "one")["data"] == {"a": "b", "c": "d"}
    with pytest.raises(FieldConflictError) as caught:
        cluster.apply(_config("one", a="x"), manager="other")
    assert (caught.value.fields, caught.value.managers) == ((".data.a",), ("fieldpost",))
    cluster.apply(_config("one", a="x"), manager="other", force=True)
    assert cluster.get("ConfigMap", "one")["data"] == {"a": "x"}
    cluster.apply(_config("one"))
    assert cluster.get("ConfigMap", "one")["data"] == {"a": "x"}


def test_a_server_that_is_no_cluster(
    cluster: Cluster, double: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double.api, "answer", lambda _ask: (200, "hello"))
    assert cluster.version() == ""


def test_certificates_that_cannot_be_read(tmp_path: Path, double: KubernetesDouble) -> None:
    config = double.kubeconfig(tmp_path / "kubeconfig")
    text = config.read_text().replace(
        f"server: {double.url}", f"server: {double.url}\n    certificate-authority: none.pem"
    )
    config.write_text(text)
    access = find_access(environment={"KUBECONFIG": str(config)})
    with pytest.raises(Exception, match="certificates of the context 'double' cannot be read"):
        Cluster(access)


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _secure(folder: Path, double: KubernetesDouble, **cluster: Any) -> Cluster:
    """Logs in by a certificate, whose data is in the kubeconfig."""
    authority = {"certificate-authority-data": _data(folder / "ca.pem")}
    user = {
        "client-certificate-data": _data(folder / "me.pem"),
        "client-key-data": _data(folder / "me.key"),
    }
    document = yaml.safe_load(double.kubeconfig(folder / "kubeconfig").read_text())
    document["clusters"][0]["cluster"] |= authority | cluster
    document["users"][0]["user"] = user
    (folder / "kubeconfig").write_text(yaml.safe_dump(document))
    access = find_access(environment={"KUBECONFIG": str(folder / "kubeconfig")})
    return Cluster(access, patience_s=0.1)


def test_certificates_say_who_both_are(tmp_path: Path) -> None:
    tls = api_tls(tmp_path)
    with KubernetesDouble(tls) as double:
        with _secure(tmp_path, double, **{"tls-server-name": "localhost"}) as cluster:
            assert cluster.list("ConfigMap").items == []
        with (
            _secure(tmp_path, double, **{"tls-server-name": "other.example"}) as cluster,
            pytest.raises(TargetError, match=r"not trusted: .*certificate verify failed"),
        ):
            cluster.version()
