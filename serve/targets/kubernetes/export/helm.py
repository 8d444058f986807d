"""A Helm chart whose values are the package's settings.

The templates are the same for every package (`chart/`). What differs is in the values, which are
parts of the objects that `render` makes: with them as they are, Helm renders those objects.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from serve.targets.kubernetes import labels, texts
from serve.targets.kubernetes.export.documents import Files, stream, to_yaml
from serve.targets.kubernetes.export.plain import about
from serve.targets.kubernetes.objects import Object, config, monitoring, network, pod, scaling
from serve.targets.kubernetes.objects.meta import annotations_of, labels_of, names_of, selector_of
from serve.targets.kubernetes.objects.workload import deployment, disruption_budget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from serve.targets.kubernetes.deployable import Deployable

_CHART = "chart"
_MOST_BY_DEFAULT = 10
_KUBERNETES = ">=1.30.0-0"  # from there on a pod can wait before it leaves without a shell
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,17})", re.ASCII)


def helm_files(of: Deployable) -> Files:
    """The chart; the namespace is that of the release."""
    here = msgspec.structs.replace(of, namespace="")
    files = dict(_templates(resources.files(__package__).joinpath(_CHART), ""))
    files["Chart.yaml"] = stream([_chart(here)], about(here))
    files["values.yaml"] = _values_file(values(here), about(here))
    files[".helmignore"] = b".git/\n*.tgz\n*.orig\n"
    return dict(sorted(files.items()))


def _templates(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, f"{path}{entry.name}/")
        else:
            yield f"{path}{entry.name}", entry.read_bytes()


def _chart(of: Deployable) -> Object:
    version = of.package.version
    major = version if _NUMBER.fullmatch(version) else "0"
    return {
        "apiVersion": "v2",
        "name": names_of(of).base,
        "description": f"The model {of.package.model or of.name}, served by Fieldpost.",
        "type": "application",
        "version": f"{major}.{of.revision}.0",
        "appVersion": version or of.package.digest,
        "kubeVersion": _KUBERNETES,
    }


def values(of: Deployable) -> Object:
    """All that the templates leave open, as the deployment has it."""
    settings = of.settings
    spec = deployment(of)["spec"]
    return {
        "name": names_of(of).base,
        "image": {"repository": of.repository, "digest": of.reference.partition("@")[2]},
        "labels": _without(labels_of(of), selector_of(of)),
        "annotations": _without(annotations_of(of), {labels.IMAGE}),
        "settings": config.server_variables(of),
        "envFrom": config.environment_sources(of)[1:],
        "replicas": settings.replicas,
        "revisionHistoryLimit": spec["revisionHistoryLimit"],
        "progressDeadlineSeconds": spec["progressDeadlineSeconds"],
        "strategy": spec["strategy"],
        **_pod(of),
        "service": _service(of),
        **_scaling(of),
        "podDisruptionBudget": {
            "enabled": True,
            "maxUnavailable": disruption_budget(of)["spec"]["maxUnavailable"],
        },
        **_network(of),
        "serviceMonitor": _monitor(of),
    }


def _pod(of: Deployable) -> Object:
    settings = of.settings
    spec = pod.spec(of)
    (container,) = spec["containers"]
    own = settings.service_account
    kept = ("resources", "startupProbe", "readinessProbe", "securityContext")
    spread = spec.get("topologySpreadConstraints", [])
    return {
        "podAnnotations": texts.mapping("annotations", settings.annotations, values=False),
        "serviceAccount": {"create": not own, "name": own or ""},
        "imagePullSecrets": spec.get("imagePullSecrets", []),
        "podSecurityContext": spec["securityContext"],
        "terminationGracePeriodSeconds": spec["terminationGracePeriodSeconds"],
        **{key: container[key] for key in kept},
        "livenessProbe": container.get("livenessProbe", {}),
        "lifecycle": container.get("lifecycle", {}),
        "volumeMounts": container["volumeMounts"],
        "volumes": spec["volumes"],
        "nodeSelector": spec["nodeSelector"],
        "affinity": spec["affinity"],
        "topologySpreadConstraints": [_without(each, {"labelSelector"}) for each in spread],
        "tolerations": spec.get("tolerations", []),
        "priorityClassName": settings.priority_class or "",
        "runtimeClassName": settings.runtime_class or "",
    }


def _service(of: Deployable) -> Object:
    spec = network.service(of)["spec"]
    (port,) = spec["ports"]
    return {"type": spec["type"], "port": port["port"], "portName": port["name"]}


def _scaling(of: Deployable) -> Object:
    """Both scalers, ready to be turned on where they are off."""
    settings = of.settings
    most = settings.max_replicas or max(_MOST_BY_DEFAULT, settings.replicas)
    ready = msgspec.structs.replace(
        of, settings=msgspec.structs.replace(settings, max_replicas=most)
    )
    keda = settings.scales and settings.scaler == "keda"
    own, other = scaling.autoscaler(ready)["spec"], scaling.scaled_object(ready)["spec"]
    return {
        "autoscaling": {
            "enabled": settings.scales and not keda,
            **_without(own, {"scaleTargetRef"}),
        },
        "keda": {"enabled": keda, **_without(other, {"scaleTargetRef"})},
    }


def _network(of: Deployable) -> Object:
    settings = of.settings
    policy = network.network_policy(of)["spec"]
    route = network.http_route(of)["spec"]
    way_in = network.ingress(of)["spec"]
    return {
        "networkPolicy": {
            "enabled": True,
            "ingress": policy["ingress"],
            "egress": policy["egress"],
        },
        "httpRoute": {
            "enabled": bool(settings.gateway),
            "parentRefs": route["parentRefs"],
            "hostnames": route.get("hostnames", []),
            "path": settings.path,
        },
        "ingress": {
            "enabled": bool(settings.ingress_class),
            "className": settings.ingress_class or "",
            "host": settings.hostname or "",
            "path": settings.path,
            "tls": way_in.get("tls", []),
        },
    }


def _monitor(of: Deployable) -> Object:
    wanted = monitoring.service_monitor(of)
    on = msgspec.structs.replace(of.settings, monitor="on")
    always = monitoring.service_monitor(msgspec.structs.replace(of, settings=on)) or {}
    (endpoint,) = always["spec"]["endpoints"]
    return {
        "enabled": wanted is not None,
        "labels": texts.mapping("monitor_labels", of.settings.monitor_labels),
        "endpoint": _without(endpoint, {"port"}),
    }


def _without(mapping: Object | dict[str, str], keys: Any) -> Object:
    return {key: value for key, value in mapping.items() if key not in keys}


_COMMENTS = {
    "name": "Of all objects. Empty: the release's name.",
    "image": "By its digest alone: 'fieldpost package push' prints it.",
    "settings": "Of the server: docs/how-to/run-deployments.md.",
    "envFrom": "Further Secrets and ConfigMaps whose keys become environment variables.",
    "replicas": "Where nothing scales.",
    "resources": "Derived from the package's size.",
    "terminationGracePeriodSeconds": "At least the wait before leaving and the drain together.",
    "autoscaling": "A HorizontalPodAutoscaler.",
    "keda": "A ScaledObject, in place of the autoscaler, where KEDA is.",
    "networkPolicy": "The server's port alone; out, what the package needs.",
    "httpRoute": "The way in through the Gateway API.",
    "ingress": "The way in through an Ingress.",
    "serviceMonitor": "Where the Prometheus operator is.",
}


def _values_file(content: Object, comment: str) -> bytes:
    """With a word about what people change."""
    parts = ["".join(f"# {line}\n" for line in comment.splitlines())]
    for key, value in content.items():
        note = f"# {_COMMENTS[key]}\n" if key in _COMMENTS else ""
        parts.append(note + to_yaml({key: value}))
    return "\n".join(parts).encode()
