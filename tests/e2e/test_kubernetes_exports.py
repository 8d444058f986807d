"""Charts and bases, rendered by Helm and Kustomize themselves: they give our own objects."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import yaml

from serve.targets.kubernetes.export import export_files
from serve.targets.kubernetes.export.writing import write_files
from serve.targets.kubernetes.names import content_hash
from serve.targets.kubernetes.objects import render
from tests.support import renderers
from tests.support.kubernetes_objects import VERSIONS, deployable, restricted_faults

SETTINGS: list[dict[str, Any]] = [
    {},
    {"max_replicas": 9, "env__TOKEN": "x", "ingress_class": "nginx", "hostname": "a.example.org"},
    {
        "max_replicas": 9,
        "scaler": "keda",
        "gateway": "infra/public",
        "path": "/iris",
        "monitor_labels": "release=prometheus",
        "target_in_flight": 3,
        "prometheus": "http://prometheus:9090",
        "egress": "none",
        "leave_s": 0,
        "spread": "off",
        "labels": "team=forecast",
        "annotations": "example.org/x=y z",
        "service_account": "own",
        "pull_secret": "a,b",
        "priority_class": "high",
        "runtime_class": "gvisor",
    },
    {
        "tls_secret": "cert",
        "client_ca_secret": "clients",
        "api_keys_secret": "keys",
        "monitor": "off",
        "gpus": 1,
        "tolerations": "nvidia.com/gpu:NoSchedule",
        "node_selector": "pool=gpu",
        "volumes": "claim:/models:ro",
        "allow_from": "web",
        "workers": 3,
        "spread": "hard",
        "user": "image",
        "liveness": "false",
        "traces": "http://collector:4318",
    },
]


def _exported(
    form: Any, folder: Path, name: str = "iris", **settings: Any
) -> tuple[Path, tuple[dict[str, Any], ...]]:
    """Where it is written, and what it has to give."""
    of = deployable(name, **settings)
    of = msgspec.structs.replace(of, outside=True, workspace="", namespace="")
    into = folder / form
    write_files(export_files(of, form), into)
    return into, render(of)


def _by_name(objects: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.mark.parametrize("settings", SETTINGS)
def test_helm_renders_our_objects_from_the_values_as_they_are(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    chart, wanted = _exported("helm", tmp_path, **settings)
    assert _by_name(renderers.helm(chart)) == _by_name(wanted)


def test_helm_turns_on_what_is_off(tmp_path: Path) -> None:
    chart, _ = _exported("helm", tmp_path, "iris.v2")
    values = {
        "name": "",
        "replicas": 5,
        "settings": {"FIELDPOST_SERVER_RATE_LIMIT": 7.5, "FIELDPOST_SERVER_RATE_BURST": 2_000_000},
        "autoscaling": {"enabled": True, "maxReplicas": 40},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        "ingress": {"enabled": True, "className": "nginx"},
    }
    found = _by_name(renderers.helm(chart, values))
    names = dict(found.keys())
    assert names["Deployment"] == names["Service"] == renderers.RELEASE
    (container,) = found["Deployment", "release"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"][0]["configMapRef"]["name"] == names["ConfigMap"]
    data = found["ConfigMap", names["ConfigMap"]]["data"]
    assert data["FIELDPOST_SERVER_RATE_LIMIT"] == "7.5"
    assert data["FIELDPOST_SERVER_RATE_BURST"] == "2000000"  # 2e+06, as Helm writes its floats
    assert names["ConfigMap"] == f"release-config-{content_hash(data)}"
    assert found["HorizontalPodAutoscaler", "release"]["spec"]["maxReplicas"] == 40
    assert "replicas" not in found["Deployment", "release"]["spec"]
    for each in found.values():
        if each["kind"] != "HTTPRoute" and each["kind"] != "ServiceMonitor":
            kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
    spec = found["Deployment", "release"]["spec"]["template"]["spec"]
    assert [*restricted_faults(spec)] == []


@pytest.mark.parametrize(
    "values", [{"image": {"digest": "latest"}}, {"image": {"tag": "1"}}, {"service": {"port": 0}}]
)
def test_helm_refuses_what_is_no_digest(values: dict[str, Any], tmp_path: Path) -> None:
    chart, _ = _exported("helm", tmp_path)
    with pytest.raises(ValueError, match=r"(?i)values|schema"):
        renderers.helm(chart, values)


@pytest.mark.parametrize("settings", SETTINGS)
def test_kustomize_builds_our_objects(settings: dict[str, Any], tmp_path: Path) -> None:
    base, wanted = _exported("kustomize", tmp_path, **settings)
    found = renderers.kustomize(base)
    (ours,) = (each["metadata"]["name"] for each in wanted if each["kind"] == "ConfigMap")
    (theirs,) = (each["metadata"]["name"] for each in found if each["kind"] == "ConfigMap")
    assert theirs.startswith("iris-config-")
    same_name = json.loads(json.dumps(found).replace(theirs, ours))
    assert _by_name(same_name) == _by_name(wanted)


def test_an_overlay_of_kustomize_merges_settings_and_pods_follow(tmp_path: Path) -> None:
    _exported("kustomize", tmp_path)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": ["../kustomize"],
                "namespace": "models",
                "replicas": [{"name": "iris", "count": 9}],
                "configMapGenerator": [
                    {
                        "name": "iris-config",
                        "behavior": "merge",
                        "literals": ["FIELDPOST_SERVER_RATE_LIMIT=7"],
                    }
                ],
            }
        )
    )
    found = {each["kind"]: each for each in renderers.kustomize(overlay)}
    assert found["ConfigMap"]["data"]["FIELDPOST_SERVER_RATE_LIMIT"] == "7"
    assert found["ConfigMap"]["data"]["FIELDPOST_SERVER_HOST"] == "0.0.0.0"
    assert found["Deployment"]["spec"]["replicas"] == 9
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    (source,) = container["envFrom"]
    assert source["configMapRef"]["name"] == found["ConfigMap"]["metadata"]["name"]


def test_kubectl_reads_plain_yaml(tmp_path: Path) -> None:
    """Without a cluster: it parses the file, and tells each object's name."""
    folder, wanted = _exported("yaml", tmp_path, monitor="off")
    (folder / "kustomization.yaml").write_text("resources: [iris.yaml]\n")
    assert _by_name(renderers.kustomize(folder)) == _by_name(wanted)


def test_the_ray_module_compiles_with_the_standard_library(tmp_path: Path) -> None:
    folder, _ = _exported("ray", tmp_path)
    command = ["python3", "-m", "py_compile", str(folder / "fieldpost_app.py")]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0
