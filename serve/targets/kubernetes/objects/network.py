"""How requests come to the pods, and what pods may ask: Service, route, policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.server.settings import PREFIX
from serve.targets.kubernetes import texts
from serve.targets.kubernetes.objects.config import server_variables
from serve.targets.kubernetes.objects.meta import Object, head, names_of, selector_of
from serve.targets.kubernetes.settings import CONTAINER_PORT

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable

_NAMESPACE_NAME = "kubernetes.io/metadata.name"
_DNS_PORT = 53
# Settings of a server that asks others by itself.
_ASKING = (f"{PREFIX}TRACES", f"{PREFIX}OIDC_ISSUER", f"{PREFIX}OIDC_JWKS")


def service(of: Deployable) -> Object:
    """One address for all pods; HTTP and gRPC share the port."""
    settings = of.settings
    port = {
        "name": "https" if settings.tls else "http",
        "port": settings.service_port,
        "protocol": "TCP",
        "targetPort": "http",
    }
    if settings.tls:  # for gateways, which would not know
        port["appProtocol"] = "https"
    return {
        **head(of, "v1", "Service"),
        "spec": {"type": settings.service, "selector": selector_of(of), "ports": [port]},
    }


def route(of: Deployable) -> Object | None:
    """The way in from outside; None where there is none."""
    if of.settings.gateway:
        return http_route(of)
    return ingress(of) if of.settings.ingress_class else None


def http_route(of: Deployable) -> Object:
    """Of the Gateway API."""
    settings = of.settings
    namespace, _, name = (settings.gateway or "").rpartition("/")
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}
    if namespace:
        parent["namespace"] = namespace
    backend = {"kind": "Service", "name": names_of(of).base, "port": settings.service_port}
    rule: Object = {
        "matches": [{"path": {"type": "PathPrefix", "value": settings.path}}],
        "backendRefs": [backend | {"group": "", "weight": 1}],
    }
    if settings.path != "/":
        rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
        rule["filters"] = [{"type": "URLRewrite", "urlRewrite": rewrite}]
    spec: Object = {"parentRefs": [parent], "rules": [rule]}
    if settings.hostname:
        spec["hostnames"] = [settings.hostname]
    return {**head(of, "gateway.networking.k8s.io/v1", "HTTPRoute"), "spec": spec}


def ingress(of: Deployable) -> Object:
    """Paths reach the server as they were asked: rewriting is each controller's own affair."""
    settings = of.settings
    backend = {"service": {"name": names_of(of).base, "port": {"number": settings.service_port}}}
    rule: Object = {
        "http": {"paths": [{"path": settings.path, "pathType": "Prefix", "backend": backend}]}
    }
    if settings.hostname:
        rule = {"host": settings.hostname, **rule}
    spec: Object = {"ingressClassName": settings.ingress_class, "rules": [rule]}
    if settings.ingress_tls_secret:
        tls = {"hosts": [settings.hostname], "secretName": settings.ingress_tls_secret}
        spec["tls"] = [tls]
    return {**head(of, "networking.k8s.io/v1", "Ingress"), "spec": spec}


def network_policy(of: Deployable) -> Object:
    """The server's port and no other; out, what the package needs."""
    port = {"port": CONTAINER_PORT, "protocol": "TCP"}
    senders = _senders(of.settings.allow_from)
    rule: Object = {"ports": [port]} | ({"from": senders} if senders else {})
    spec: Object = {
        "podSelector": {"matchLabels": selector_of(of)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [rule],
        "egress": _egress(of),
    }
    return {**head(of, "networking.k8s.io/v1", "NetworkPolicy"), "spec": spec}


def _senders(allowed: str) -> list[Object]:
    if allowed == "any":
        return []
    if allowed == "namespace":
        return [{"podSelector": {}}]
    wanted = texts.names("allow_from", allowed)
    expression = {"key": _NAMESPACE_NAME, "operator": "In", "values": sorted(wanted)}
    return [{"namespaceSelector": {"matchExpressions": [expression]}}]


def _egress(of: Deployable) -> list[Object]:
    kind = of.settings.egress
    if kind == "auto":
        asks = any(server_variables(of).get(name) for name in _ASKING)
        # `env.*` may hold what libraries of a script, or the server itself, ask by.
        kind = "all" if of.package.script or asks or of.settings.env else "none"
    if kind == "all":
        return [{}]
    if kind == "none":
        return []
    ports = [{"port": _DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return [{"ports": ports}]
