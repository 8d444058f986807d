"""Whatever the settings: the official schemas take the objects, and so does Pod Security."""

from __future__ import annotations

import json
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as limits

from serve.targets.kubernetes import labels
from serve.targets.kubernetes.deployable import Deployable
from serve.targets.kubernetes.export import export_files
from serve.targets.kubernetes.export.kserve import inference_service
from serve.targets.kubernetes.objects import render
from tests.support.kubernetes_objects import VERSIONS, deployables, restricted_faults

EXTENDED = {"HTTPRoute", "ServiceMonitor", "ScaledObject", "InferenceService"}
FEW = limits(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MORE = limits(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?")
_DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


@pytest.mark.parametrize("version", VERSIONS)
@given(of=deployables())
@FEW
def test_the_official_schemas_take_all_objects(version: str, of: Deployable) -> None:
    for each in render(of):
        if each["kind"] not in EXTENDED:
            kubernetes_validate.validate(each, version, strict=True)


@given(of=deployables())
@MORE
def test_names_and_labels_are_those_that_kubernetes_takes(of: Deployable) -> None:
    objects = render(of)
    keys = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(keys)) == len(keys)
    for each in objects:
        metadata = each["metadata"]
        assert len(metadata["name"]) <= 63
        assert _DNS_LABEL.fullmatch(metadata["name"])
        for value in metadata["labels"].values():
            assert len(value) <= 63
            assert _LABEL.fullmatch(value)
        assert metadata["annotations"][labels.PACKAGE] == of.package.digest
        assert "@sha256:" in metadata["annotations"][labels.IMAGE]


@given(of=deployables())
@MORE
def test_pods_keep_to_the_restricted_standard(of: Deployable) -> None:
    (deployment,) = (each for each in render(of) if each["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    assert [*restricted_faults(template["spec"])] == []
    assert template["spec"]["automountServiceAccountToken"] is False
    (container,) = template["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items()


@given(of=deployables())
@FEW
def test_equal_input_gives_equal_bytes_and_no_text_is_read_as_something_else(
    of: Deployable,
) -> None:
    assert json.dumps(render(of)) == json.dumps(render(of))
    outside = Deployable(
        **{key: getattr(of, key) for key in of.__struct_fields__} | {"outside": True}
    )
    for form in ("yaml", "kustomize", "helm", "kserve", "ray"):
        assert export_files(outside, form) == export_files(outside, form)
    (content,) = export_files(outside, "yaml").values()
    assert tuple(yaml.safe_load_all(content)) == render(outside)


@given(of=deployables(outside=True))
@FEW
def test_exports_hold_no_value_of_an_environment_variable(of: Deployable) -> None:
    for each in render(of):
        assert each["kind"] != "Secret"


@given(of=deployables(outside=True))
@FEW
def test_a_predictor_of_kserve_is_a_pod_as_the_schema_has_it(of: Deployable) -> None:
    service = inference_service(of)
    predictor: dict[str, Any] = dict(service["spec"]["predictor"])
    for key in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"):
        predictor.pop(key, None)
    assert [*restricted_faults(predictor)] == []
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": predictor}
    kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)
    assert predictor["containers"][0]["image"].count("@sha256:") == 1
