"""An endpoint as objects of a cluster. Pure.

With the Gateway API it is an HTTPRoute, which spreads requests by weight and by header and mirrors
them. Without, it is one Service over the pods of all deployments: the number of pods is the weight,
and whatever a Service cannot do is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from scoring.errors import UsageError
from serve.endpoints.traffic import ANY, HeaderRule, Shadow, Traffic
from serve.targets.kubernetes import labels
from serve.targets.kubernetes.names import base_name

Object = dict[str, Any]

GATEWAY_API = "gateway.networking.k8s.io"
ENDPOINT = labels.PREFIX + "endpoint"
MEMBER = labels.PREFIX + "endpoint."
"""On pods, followed by the endpoint's base name: the Service of the endpoint leads to them."""

_WHOLE = 100
_MOST_HEADER_MATCHES = 16


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `--set` takes for an endpoint on Kubernetes.

    Attributes:
        gateway: `[NAMESPACE/]NAME` of a Gateway: an HTTPRoute spreads the requests. Without it,
            one Service does, by the number of pods.
        hostname: That the route answers to; every one by default.
        path: The prefix of paths that the route takes.
        port: Of the Service.
        replicas: Pods of all deployments together, where a Service spreads the requests; by
            default as many as there are.
    """

    gateway: str = ""
    hostname: str = ""
    path: Annotated[str, msgspec.Meta(pattern="^/")] = "/"
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 80
    replicas: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None


class Place(NamedTuple):
    """Where an endpoint's objects are, and whose they are.

    Attributes:
        name: The endpoint's.
        namespace: Of the deployments, too.
        workspace: The workspace's identity.
    """

    name: str
    namespace: str
    workspace: str

    @property
    def labels(self) -> dict[str, str]:
        """On every object of the endpoint, and on no other."""
        return {
            ENDPOINT: labels.label_value(self.name),
            labels.APP_MANAGER: labels.MANAGER,
            labels.WORKSPACE: labels.label_value(self.workspace),
        }

    @property
    def member(self) -> str:
        """The label of pods behind the endpoint's Service."""
        return MEMBER + base_name(self.name)


class Behind(NamedTuple):
    """A deployment as the cluster has it.

    Attributes:
        service: The name of its Service, and of its Deployment.
        port: Of the Service.
        target_port: Of its pods, by number or name.
        replicas: Pods that it is to have.
    """

    service: str
    port: int
    target_port: int | str = "http"
    replicas: int = 1


def http_route(
    place: Place, traffic: Traffic, behind: Mapping[str, Behind], settings: ClusterSettings
) -> Object:
    """The route that spreads requests as the traffic says.

    Args:
        place: Whose it is.
        traffic: Where requests go.
        behind: The deployments by name.
        settings: With a gateway.

    Raises:
        UsageError: The Gateway API has no such thing.
    """
    if traffic.sticky:
        raise UsageError(
            "A route of the Gateway API cannot keep requests with a deployment by a header.",
            hint="Leave --sticky out, or put the endpoint before local or docker deployments.",
            where="--sticky",
        )
    filters = [_mirror(shadow, behind[shadow.deployment]) for shadow in traffic.shadows]
    weighted = [
        _backend(behind[name]) | {"weight": weight} for name, weight in traffic.weights.items()
    ]
    rules = [_rule(settings, weighted, filters)]
    ruled = [
        _rule(settings, [_backend(behind[rule.deployment])], filters, header=rule)
        for rule in traffic.rules
    ]
    if len(ruled) >= _MOST_HEADER_MATCHES:
        raise UsageError(
            f"A route has at most {_MOST_HEADER_MATCHES} rules.", hint="Leave some --header out."
        )
    namespace, _, gateway = settings.gateway.rpartition("/")
    parent = {"group": GATEWAY_API, "kind": "Gateway", "name": gateway}
    if namespace:
        parent["namespace"] = namespace
    spec: Object = {"parentRefs": [parent], "rules": ruled + rules}
    if settings.hostname:
        spec["hostnames"] = [settings.hostname]
    return _head(place, f"{GATEWAY_API}/v1", "HTTPRoute") | {"spec": spec}


def service(place: Place, behind: Mapping[str, Behind], settings: ClusterSettings) -> Object:
    """The Service over the pods of all deployments that get requests.

    Raises:
        UsageError: Their pods listen on different ports.
    """
    ports = {each.target_port for each in behind.values()}
    if len(ports) > 1:
        raise UsageError(
            "The pods of these deployments listen on different ports.",
            hint="Deploy them with the same settings.",
        )
    port = {"name": "http", "port": settings.port, "protocol": "TCP", "targetPort": ports.pop()}
    spec = {"type": "ClusterIP", "selector": {place.member: "true"}, "ports": [port]}
    return _head(place, "v1", "Service") | {"spec": spec}


def require_plain(traffic: Traffic) -> None:
    """Raises `UsageError` for what a Service cannot do."""
    wanted = {
        "Split by header": traffic.rules,
        "Copies for a shadow": traffic.shadows,
        "Sticky requests": traffic.sticky,
    }
    for what, given in wanted.items():
        if given:
            raise UsageError(
                f"{what} cannot be had from a Service, which spreads connections over pods alone.",
                hint="Name a Gateway, where the cluster has the Gateway API: --set gateway=NAME.",
                where="gateway",
            )


def pods(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """How many pods each deployment gets, so that their numbers are as the weights are.

    Each with a weight has at least one: small shares take many pods.

    Args:
        weights: Of the deployments.
        total: Pods of all together; raised where it is less than one for each.
    """
    wanted = {name: weight for name, weight in weights.items() if weight}
    total = max(total, len(wanted))
    whole = sum(wanted.values())
    exact = {name: weight * total / whole for name, weight in wanted.items()}
    found = {name: max(int(value), 1) for name, value in exact.items()}
    while (left := total - sum(found.values())) != 0:
        step = 1 if left > 0 else -1
        movable = [name for name in found if step > 0 or found[name] > 1]
        # The one that is furthest from its share moves; by name where two are.
        name = max(movable, key=lambda each: (step * (exact[each] - found[each]), each))
        found[name] += step
    return found


def membership(place: Place, behind: Behind, *, member: bool, replicas: int | None) -> Object:
    """What an endpoint says of a Deployment, beside what the deployment's owner says.

    Args:
        place: Whose it is.
        behind: The deployment.
        member: Whether its pods are behind the Service.
        replicas: How many there are to be; None leaves that to others.
    """
    spec: Object = {}
    if replicas is not None:
        spec["replicas"] = replicas
    if member:
        spec["template"] = {"metadata": {"labels": {place.member: "true"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": behind.service, "namespace": place.namespace},
        "spec": spec,
    }


def _rule(
    settings: ClusterSettings,
    backends: list[Object],
    filters: list[Object],
    *,
    header: HeaderRule | None = None,
) -> Object:
    match: Object = {"path": {"type": "PathPrefix", "value": settings.path}}
    if header is not None:
        match["headers"] = [_header_match(header)]
    found: Object = {"matches": [match], "backendRefs": backends}
    every = list(filters)
    if settings.path != "/":
        rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
        every.append({"type": "URLRewrite", "urlRewrite": rewrite})
    if every:
        found["filters"] = every
    return found


def _header_match(rule: HeaderRule) -> Object:
    if rule.value == ANY:
        return {"type": "RegularExpression", "name": rule.header, "value": ".+"}
    return {"type": "Exact", "name": rule.header, "value": rule.value}


def _mirror(shadow: Shadow, behind: Behind) -> Object:
    mirror: Object = {"backendRef": _backend(behind)}
    if shadow.percent < _WHOLE:
        if shadow.percent != int(shadow.percent):
            raise UsageError(
                "Shares of a shadow are whole per cent on a cluster.",
                hint=f"For example --shadow {shadow.deployment}={max(round(shadow.percent), 1)}.",
                where="--shadow",
            )
        mirror["percent"] = int(shadow.percent)
    return {"type": "RequestMirror", "requestMirror": mirror}


def _backend(behind: Behind) -> Object:
    return {"group": "", "kind": "Service", "name": behind.service, "port": behind.port}


def _head(place: Place, api: str, kind: str) -> Object:
    metadata = {
        "name": base_name(place.name),
        "namespace": place.namespace,
        "labels": place.labels,
        "annotations": {ENDPOINT: place.name},
    }
    return {"apiVersion": api, "kind": kind, "metadata": metadata}
