"""What the kubelet asks a pod: the health routes of the server, and how it lets it go."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from serve.targets.kubernetes.settings import CONTAINER_PORT

if TYPE_CHECKING:
    from serve.targets.kubernetes.objects.meta import Object
    from serve.targets.kubernetes.settings import KubernetesSettings

LEAVE_S = 5
"""Beyond the drain, until a server that has not gone is killed."""

_STARTUP_PERIOD_S = 2
_READY_PERIOD_S = 5
_LIVE_PERIOD_S = 10
_TIMEOUT_S = 3
_MISSED = 3


def probes(settings: KubernetesSettings) -> Object:
    """All three. Until the first has succeeded the kubelet asks none of the others.

    A server that is deep in a model answers health all the same, from another thread; one that
    does not answer for half a minute hangs.
    """
    patience = math.ceil(settings.ready_timeout_s / _STARTUP_PERIOD_S)
    found: Object = {
        "startupProbe": {
            **_ask(settings, "/v2/health/ready"),
            "periodSeconds": _STARTUP_PERIOD_S,
            "timeoutSeconds": _TIMEOUT_S,
            "failureThreshold": patience,
        },
        "readinessProbe": {
            **_ask(settings, "/v2/health/ready"),
            "periodSeconds": _READY_PERIOD_S,
            "timeoutSeconds": _TIMEOUT_S,
            "failureThreshold": _MISSED,
        },
    }
    if settings.liveness:
        found["livenessProbe"] = {
            **_ask(settings, "/v2/health/live"),
            "periodSeconds": _LIVE_PERIOD_S,
            "timeoutSeconds": _TIMEOUT_S,
            "failureThreshold": _MISSED,
        }
    return found


def lifecycle(settings: KubernetesSettings) -> Object:
    """The server goes on accepting while the cluster takes its address out of use."""
    if not settings.leave_s:
        return {}
    return {"lifecycle": {"preStop": {"sleep": {"seconds": settings.leave_s}}}}


def grace_s(settings: KubernetesSettings) -> int:
    """From the order to end to the kill: leaving, the drain, and some time to go."""
    return settings.leave_s + math.ceil(settings.drain_timeout_s) + LEAVE_S


def _ask(settings: KubernetesSettings, path: str) -> Object:
    """A server listens when its model is loaded, so a connection says nearly as much."""
    if settings.client_ca_secret:  # the kubelet has no certificate to show
        return {"tcpSocket": {"port": CONTAINER_PORT}}
    scheme = "HTTPS" if settings.tls else "HTTP"
    return {"httpGet": {"path": path, "port": CONTAINER_PORT, "scheme": scheme}}
