"""A Kustomize base: the objects one by one, and the server's settings as a generated ConfigMap.

The generator names the ConfigMap by its content, as we do, and an overlay can merge settings of its
own into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve.targets.kubernetes.export.documents import Files, stream
from serve.targets.kubernetes.export.plain import about
from serve.targets.kubernetes.objects import Object, render
from serve.targets.kubernetes.objects.meta import names_of

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable

_FILE = "kustomization.yaml"


def kustomize_files(of: Deployable) -> Files:
    """One file for each object, and the kustomization."""
    objects = render(of)
    config = next(each for each in objects if each["kind"] == "ConfigMap")
    name = f"{names_of(of).base}-config"
    kept = [_renamed(each, config["metadata"]["name"], name) for each in objects]
    kept = [each for each in kept if each["kind"] != "ConfigMap"]
    files = {f"{each['kind'].lower()}.yaml": stream([each]) for each in kept}
    return files | {_FILE: stream([_kustomization(config, name, sorted(files))], about(of))}


def _kustomization(config: Object, name: str, resources: list[str]) -> Object:
    metadata = config["metadata"]
    options = {
        "immutable": True,
        "labels": metadata["labels"],
        "annotations": metadata["annotations"],
    }
    literals = [f"{key}={value}" for key, value in config["data"].items()]
    generated = {"name": name, "literals": literals, "options": options}
    if "namespace" in metadata:
        generated["namespace"] = metadata["namespace"]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
        "configMapGenerator": [generated],
    }


def _renamed(value: Any, old: str, new: str) -> Any:
    """The same, with another name of the ConfigMap; the generator adds its hash."""
    if isinstance(value, dict):
        return {key: _renamed(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, old, new) for each in value]
    return new if value == old else value
