"""The stand-in for a cluster: server-side apply as Kubernetes documents it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.kubernetes_double import merging, owning, schema
from tests.support.kubernetes_double.owning import ConflictingError, Owner

NODE = schema.of("apps/v1", "Deployment")
US, THEM = Owner("us", "Apply"), Owner("them", "Apply")


def _deployment(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "a"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _apply(live: Any, config: Any, owner: Owner, *, force: bool = False) -> dict[str, Any]:
    found, owned = owning.applied(live, config, owner, NODE, force=force)
    owning.write(found, owned, "apps/v1", "now", live)
    return found


def _pod(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"template": {"spec": {"containers": list(containers), **more}}}


def _containers(item: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in item["spec"]["template"]["spec"]["containers"]}


def test_lists_with_keys_merge_by_entry() -> None:
    live = _apply(None, _deployment(**_pod({"name": "server", "image": "a"})), US)
    live = _apply(live, _deployment(**_pod({"name": "mesh", "image": "m"})), THEM)
    assert list(_containers(live)) == ["server", "mesh"]
    live = _apply(live, _deployment(**_pod({"name": "server", "image": "b"})), US)
    assert {name: each["image"] for name, each in _containers(live).items()} == {
        "server": "b",
        "mesh": "m",
    }


def test_an_entry_stays_while_anybody_owns_anything_in_it() -> None:
    live = _apply(None, _deployment(**_pod({"name": "server", "image": "a"})), US)
    theirs = {"name": "server", "workingDir": "/x"}
    live = _apply(live, _deployment(**_pod(theirs)), THEM)
    live = _apply(live, _deployment(replicas=1), US)
    assert _containers(live) == {"server": {"name": "server", "workingDir": "/x"}}
    live = _apply(live, _deployment(paused=True), THEM)
    assert "template" not in live["spec"] or not _containers(live)


def test_ports_without_a_protocol_are_tcp() -> None:
    live = _apply(None, _deployment(**_pod({"name": "s", "ports": [{"containerPort": 1}]})), US)
    more = {"name": "s", "ports": [{"containerPort": 1, "protocol": "TCP", "name": "http"}]}
    live = _apply(live, _deployment(**_pod(more)), THEM)
    assert len(_containers(live)["s"]["ports"]) == 1


def test_a_field_that_is_given_up_goes_unless_others_own_it() -> None:
    live = _apply(None, _deployment(replicas=3, paused=True), US)
    live = _apply(live, _deployment(replicas=3), THEM)
    live = _apply(live, _deployment(), US)
    assert live["spec"] == {"replicas": 3}


def test_the_same_value_is_shared_and_another_is_a_conflict() -> None:
    live = _apply(None, _deployment(replicas=3), US)
    live = _apply(live, _deployment(replicas=3), THEM)
    with pytest.raises(ConflictingError) as caught:
        _apply(live, _deployment(replicas=4), THEM)
    assert [(merging.text_of(path), who) for path, who in caught.value.fields] == [
        (".spec.replicas", US)
    ]
    live = _apply(live, _deployment(replicas=4), THEM, force=True)
    assert owning.read(live) == {THEM: {("f:spec", "f:replicas")}}


def test_an_update_takes_fields_without_asking() -> None:
    live = _apply(None, _deployment(replicas=3), US)
    scaled = copy.deepcopy(live)
    scaled["spec"]["replicas"] = 5
    controller = Owner("kube-controller-manager", "Update", "scale")
    found, owned = owning.updated(live, scaled, controller, NODE)
    owning.write(found, owned, "apps/v1", "now", live)
    assert owning.read(found)[controller] == {("f:spec", "f:replicas")}
    assert US not in owning.read(found)


def test_selectors_and_tolerations_are_whole() -> None:
    live = _apply(None, _deployment(selector={"matchLabels": {"a": "b"}}), US)
    with pytest.raises(ConflictingError):
        _apply(live, _deployment(selector={"matchLabels": {"c": "d"}}), THEM)


def test_fields_that_there_are_not_are_named() -> None:
    with pytest.raises(KeyError, match=r"\.spec\.replica"):
        _apply(None, _deployment(replica=3), US)


def test_an_entry_of_a_list_goes_with_what_others_changed_in_it() -> None:
    server, mesh = {"name": "server", "image": "a"}, {"name": "mesh", "image": "m"}
    live = _apply(None, _deployment(**_pod(server, mesh)), US)
    changed = copy.deepcopy(live)
    _containers(changed)["mesh"]["image"] = "other"
    kubectl = Owner("kubectl", "Update")
    found, owned = owning.updated(live, changed, kubectl, NODE)
    owning.write(found, owned, "apps/v1", "now", live)
    live = _apply(found, _deployment(**_pod(server)), US)
    assert set(_containers(live)) == {"server"}
    assert kubectl not in owning.read(live)


def test_what_was_empty_and_is_filled_stays() -> None:
    live = _apply(None, _deployment(strategy={}), US)
    live = _apply(live, _deployment(strategy={"type": "Recreate"}), US)
    assert live["spec"]["strategy"] == {"type": "Recreate"}


def test_entries_are_written_as_a_cluster_writes_them() -> None:
    port = {"name": "server", "ports": [{"containerPort": 80}]}
    live = _apply(None, _deployment(**_pod(port, imagePullSecrets=[{"name": "x"}])), US)
    pod = live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]
    container = pod["f:containers"]['k:{"name":"server"}']
    key = 'k:{"containerPort":80,"protocol":"TCP"}'
    assert container["f:ports"] == {key: {".": {}, "f:containerPort": {}}}
    assert pod["f:imagePullSecrets"] == {'k:{"name":"x"}': {}}


LABELS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"), min_size=1, max_size=4)


@given(LABELS, LABELS, LABELS)
def test_applies_do_the_same_once_and_twice(
    first: dict[str, str], second: dict[str, str], third: dict[str, str]
) -> None:
    def config(labels: dict[str, str]) -> dict[str, Any]:
        return {**_deployment(), "metadata": {"name": "a", "labels": labels}}

    live = _apply(None, config(first), US)
    live = _apply(live, config(second), THEM, force=True)
    live = _apply(live, config(third), US, force=True)
    assert _apply(live, config(third), US, force=True) == live
    found = live["metadata"].get("labels", {})
    assert all(found[key] == text for key, text in third.items())
    expected = set(third) | {key for key in second if key not in third}
    assert set(found) == expected


@given(LABELS)
def test_field_sets_survive_being_written(labels: dict[str, str]) -> None:
    item = {**_deployment(replicas=1), "metadata": {"name": "a", "labels": labels}}
    paths = merging.fields_of(item, NODE)
    assert merging.from_tree(merging.to_tree(paths)) == paths
