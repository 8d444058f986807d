"""Fields as conflicts name them, taken out of an object."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from serve.targets.kubernetes.yielding import without

ITEM: dict[str, Any] = {
    "metadata": {"labels": {"app.kubernetes.io/name": "a", "app": "b"}, "finalizers": ["x", "y"]},
    "spec": {
        "replicas": 2,
        "containers": [
            {"name": "server", "image": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"name": 'odd]"name', "image": "b"},
        ],
    },
}


@pytest.mark.parametrize(
    ("field", "gone"),
    [
        (".spec.replicas", lambda item: item["spec"].pop("replicas")),
        (".metadata.labels.app.kubernetes.io/name", lambda i: i["metadata"]["labels"].popitem()),
        (".metadata.labels.app", lambda i: i["metadata"]["labels"].pop("app")),
        (
            '.spec.containers[name="server"].image',
            lambda i: i["spec"]["containers"][0].pop("image"),
        ),
        (
            '.spec.containers[name="server"].ports[containerPort=80,protocol="TCP"]',
            lambda i: i["spec"]["containers"][0]["ports"].pop(),
        ),
        (
            '.spec.containers[name="odd]\\"name"].image',
            lambda i: i["spec"]["containers"][1].pop("image"),
        ),
        ('.metadata.finalizers[="x"]', lambda i: i["metadata"]["finalizers"].pop(0)),
        (".spec.paused", lambda i: i),
        ('.spec.containers[name="other"].image', lambda i: i),
    ],
)
def test_one_field_goes_and_nothing_else(field: str, gone: Any) -> None:
    item = copy.deepcopy(ITEM)
    item["metadata"]["labels"] = dict(reversed(ITEM["metadata"]["labels"].items()))
    wanted = copy.deepcopy(item)
    gone(wanted)
    assert without(item, [field]) == wanted
    assert item["spec"] == ITEM["spec"]
