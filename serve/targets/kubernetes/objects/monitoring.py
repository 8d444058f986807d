"""How Prometheus finds the pods: a ServiceMonitor, where the cluster knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.targets.kubernetes import texts
from serve.targets.kubernetes.objects.meta import Object, head, names_of, selector_of

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable

_INTERVAL = "15s"


def service_monitor(of: Deployable) -> Object | None:
    """None where it was not asked for, or nobody would read it."""
    settings = of.settings
    if settings.monitor == "off" or (settings.monitor == "auto" and not of.monitors):
        return None
    found = head(of, "monitoring.coreos.com/v1", "ServiceMonitor")
    found["metadata"]["labels"] |= texts.mapping("monitor_labels", settings.monitor_labels)
    endpoint: Object = {
        "port": "https" if settings.tls else "http",
        "path": "/metrics",
        "interval": _INTERVAL,
    }
    if settings.tls:
        endpoint |= {"scheme": "https", "tlsConfig": _tls(of)}
    if settings.monitor_key_secret:
        key = {"name": settings.monitor_key_secret, "key": "key"}
        endpoint["authorization"] = {"type": "Bearer", "credentials": key}
    selected = {"matchLabels": selector_of(of)}
    return {**found, "spec": {"selector": selected, "endpoints": [endpoint]}}


def _tls(of: Deployable) -> Object:
    """The Secret of a certificate has its authority too; pods are asked by their addresses."""
    name = names_of(of).base
    return {
        "ca": {"secret": {"name": of.settings.tls_secret, "key": "ca.crt"}},
        "serverName": f"{name}.{of.namespace}.svc" if of.namespace else name,
    }
