"""A KServe InferenceService that runs our image as a custom predictor.

It asks for a Deployment (`RawDeployment`): Knative takes neither our drain nor where pods may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.targets.kubernetes.export.documents import Files, stream
from serve.targets.kubernetes.export.plain import about
from serve.targets.kubernetes.objects import Object, pod
from serve.targets.kubernetes.objects.config import server_variables
from serve.targets.kubernetes.objects.meta import head, names_of

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable

CONTAINER = "kserve-container"
"""What KServe calls the container that answers."""
_MODE = "serving.kserve.io/deploymentMode"


def kserve_files(of: Deployable) -> Files:
    """The InferenceService."""
    return {f"{names_of(of).base}.yaml": stream([inference_service(of)], about(of))}


def inference_service(of: Deployable) -> Object:
    """With the pod that we would make ourselves; KServe makes all that is around it."""
    found = head(of, "serving.kserve.io/v1beta1", "InferenceService")
    found["metadata"]["annotations"][_MODE] = "RawDeployment"
    return {**found, "spec": {"predictor": {**_scaling(of), **_pod(of)}}}


def _scaling(of: Deployable) -> Object:
    settings = of.settings
    found: Object = {"minReplicas": settings.replicas, "maxReplicas": settings.replicas}
    if settings.max_replicas is not None:
        found |= {
            "maxReplicas": settings.max_replicas,
            "scaleMetric": "cpu",
            "scaleTarget": settings.target_cpu,
        }
    return found


def _pod(of: Deployable) -> Object:
    """Its environment stands in it: a ConfigMap beside would have to be deployed first."""
    found = pod.spec(of)
    if not of.settings.service_account:
        del found["serviceAccountName"]
    for constraint in found.get("topologySpreadConstraints", []):
        constraint["labelSelector"] = {
            "matchLabels": {"app": f"isvc.{names_of(of).base}-predictor"}
        }
    (container,) = found["containers"]
    env = [{"name": key, "value": text} for key, text in server_variables(of).items()]
    sources = [each for each in container.pop("envFrom") if not _is_ours(of, each)]
    container |= {"name": CONTAINER, "env": env}
    # KServe's Service finds the port by its number, and names it itself.
    container["ports"] = [
        {"containerPort": port["containerPort"], "protocol": "TCP"} for port in container["ports"]
    ]
    if sources:
        container["envFrom"] = sources
    return found


def _is_ours(of: Deployable, source: Object) -> bool:
    named = source.get("configMapRef", {}).get("name", "")
    return bool(named == names_of(of).config(server_variables(of)))
