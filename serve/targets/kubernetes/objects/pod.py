"""The pod: one server of the package, with no more rights than it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.targets.kubernetes import texts
from serve.targets.kubernetes.objects import config
from serve.targets.kubernetes.objects.meta import (
    Object,
    annotations_of,
    labels_of,
    names_of,
    selector_of,
)
from serve.targets.kubernetes.objects.probes import grace_s, lifecycle, probes
from serve.targets.kubernetes.objects.resources import resources
from serve.targets.kubernetes.settings import CONTAINER_PORT

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable
    from serve.targets.kubernetes.settings import KubernetesSettings

CONTAINER = "server"
_GROUP_READS = 0o440
_HOST, _ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


def template(of: Deployable) -> Object:
    """The template of all pods."""
    settings = of.settings
    more = texts.mapping("annotations", settings.annotations, values=False)
    annotations = {**more, **annotations_of(of)}
    return {
        "metadata": {
            "labels": labels_of(of),
            "annotations": dict(sorted(annotations.items())),
        },
        "spec": spec(of),
    }


def spec(of: Deployable) -> Object:
    """What is in a pod, and where it may run."""
    settings = of.settings
    found: Object = {
        "automountServiceAccountToken": False,
        # Else every Service of the namespace would put variables into the environment.
        "enableServiceLinks": False,
        "serviceAccountName": settings.service_account or names_of(of).base,
        "securityContext": _pod_security(settings),
        "terminationGracePeriodSeconds": grace_s(settings),
        "containers": [container(of)],
        "volumes": volumes(of),
        **_placement(of),
    }
    pulls = pull_secrets(of)
    return found | ({"imagePullSecrets": [{"name": name} for name in pulls]} if pulls else {})


def container(of: Deployable) -> Object:
    """The server; the image knows its command."""
    return {
        "name": CONTAINER,
        "image": of.reference,
        "imagePullPolicy": "IfNotPresent",  # a digest always means the same
        "ports": [{"name": "http", "containerPort": CONTAINER_PORT, "protocol": "TCP"}],
        "envFrom": config.environment_sources(of),
        "resources": resources(of),
        **probes(of.settings),
        **lifecycle(of.settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(of),
    }


def pull_secrets(of: Deployable) -> list[str]:
    """Secrets with passwords of the registry."""
    return texts.names("pull_secret", of.settings.pull_secret)


def mounts(of: Deployable) -> list[Object]:
    """Where volumes are in the container."""
    found: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the pod's own
    for name, _, folder in _secrets(of.settings):
        found.append({"name": name, "mountPath": folder, "readOnly": True})
    for number, (_, folder, read_only) in enumerate(_claims(of.settings)):
        mount = {"name": f"claim-{number}", "mountPath": folder}
        found.append(mount | ({"readOnly": True} if read_only else {}))
    return found


def volumes(of: Deployable) -> list[Object]:
    """All volumes of a pod."""
    found: list[Object] = [{"name": "tmp", "emptyDir": {"sizeLimit": of.settings.tmp}}]
    for name, secret, _ in _secrets(of.settings):
        # Podman 4.3 falls over where it is not said that there has to be one.
        source = {"secretName": secret, "defaultMode": _GROUP_READS, "optional": False}
        found.append({"name": name, "secret": source})
    for number, (claim, _, read_only) in enumerate(_claims(of.settings)):
        source = {"claimName": claim} | ({"readOnly": True} if read_only else {})
        found.append({"name": f"claim-{number}", "persistentVolumeClaim": source})
    return found


def _secrets(settings: KubernetesSettings) -> list[tuple[str, str, str]]:
    """Name of the volume, Secret, folder. Whole folders: what changes in them is seen."""
    found = (
        ("api-keys", settings.api_keys_secret, config.KEYS_FOLDER),
        ("tls", settings.tls_secret, config.TLS_FOLDER),
        ("client-ca", settings.client_ca_secret, config.CLIENT_CA_FOLDER),
    )
    return [(name, secret, folder) for name, secret, folder in found if secret]


def _claims(settings: KubernetesSettings) -> list[tuple[str, str, bool]]:
    return list(texts.claims("volumes", settings.volumes))


def _pod_security(settings: KubernetesSettings) -> Object:
    """The restricted standard."""
    found: Object = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if settings.user == "image":  # the cluster chooses users, and groups that own volumes
        return found
    number = int(settings.user)
    return found | {
        "runAsUser": number,
        "runAsGroup": number,
        "fsGroup": number,
        "fsGroupChangePolicy": "OnRootMismatch",
    }


def _placement(of: Deployable) -> Object:
    """The nodes on which pods may be."""
    settings = of.settings
    found: Object = {
        "nodeSelector": {
            "kubernetes.io/os": "linux",
            **texts.mapping("node_selector", settings.node_selector),
        },
        "affinity": {"nodeAffinity": _architectures(of)},
    }
    spread = _spread(of)
    if spread:
        found["topologySpreadConstraints"] = spread
    tolerations = texts.tolerations("tolerations", settings.tolerations)
    if tolerations:
        found["tolerations"] = tolerations
    if settings.priority_class:
        found["priorityClassName"] = settings.priority_class
    if settings.runtime_class:
        found["runtimeClassName"] = settings.runtime_class
    return found


def _architectures(of: Deployable) -> Object:
    """Only nodes that can run the image: others would fail with 'exec format error'."""
    values = sorted({platform.partition("/")[2] for platform in of.package.platforms})
    wanted = {"key": "kubernetes.io/arch", "operator": "In", "values": values}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": terms}


def _spread(of: Deployable) -> list[Object]:
    """Over nodes and zones, each revision for itself."""
    if of.settings.spread == "off":
        return []
    hard = of.settings.spread == "hard"
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule" if hard and key == _HOST else "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector_of(of)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in (_HOST, _ZONE)
    ]
