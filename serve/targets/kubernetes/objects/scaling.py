"""What changes the number of pods: a HorizontalPodAutoscaler, or KEDA's ScaledObject."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from serve.targets.kubernetes.objects.meta import Object, head, names_of

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable
    from serve.targets.kubernetes.settings import KubernetesSettings

IN_FLIGHT = "fieldpost_in_flight"
"""The metric of each pod: requests without an answer yet."""

_UP_PERIOD_S = 15
_DOWN_WINDOW_S = 300
_DOWN_PERIOD_S = 60


def scaler(of: Deployable) -> Object | None:
    """None where the user sets the number of pods."""
    if not of.settings.scales:
        return None
    return scaled_object(of) if of.settings.scaler == "keda" else autoscaler(of)


def autoscaler(of: Deployable) -> Object:
    """By processor time, or by requests in flight through an adapter of custom metrics."""
    settings = of.settings
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": names_of(of).base}
    return {
        **head(of, "autoscaling/v2", "HorizontalPodAutoscaler"),
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": settings.replicas,
            "maxReplicas": settings.max_replicas,
            "metrics": [_metric(settings)],
            "behavior": _behavior(),
        },
    }


def _metric(settings: KubernetesSettings) -> Object:
    if settings.target_in_flight is None:
        percent = {"type": "Utilization", "averageUtilization": settings.target_cpu}
        return {"type": "Resource", "resource": {"name": "cpu", "target": percent}}
    average = {"type": "AverageValue", "averageValue": _quantity(settings.target_in_flight)}
    return {"type": "Pods", "pods": {"metric": {"name": IN_FLIGHT}, "target": average}}


def _behavior() -> Object:
    """Up at once, four times as many in one step; down slowly, from the most of five minutes."""
    up = [
        {"type": "Percent", "value": 300, "periodSeconds": _UP_PERIOD_S},
        {"type": "Pods", "value": 4, "periodSeconds": _UP_PERIOD_S},
    ]
    down = [{"type": "Percent", "value": 25, "periodSeconds": _DOWN_PERIOD_S}]
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": up},
        "scaleDown": {
            "stabilizationWindowSeconds": _DOWN_WINDOW_S,
            "selectPolicy": "Max",
            "policies": down,
        },
    }


def scaled_object(of: Deployable) -> Object:
    """KEDA makes an autoscaler of its own, and takes the last pod away where it may."""
    settings = of.settings
    return {
        **head(of, "keda.sh/v1alpha1", "ScaledObject"),
        "spec": {
            "scaleTargetRef": {"name": names_of(of).base},
            "minReplicaCount": 0 if settings.scale_to_zero else settings.replicas,
            "maxReplicaCount": settings.max_replicas,
            "cooldownPeriod": settings.cooldown_s,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
            "triggers": [_trigger(of)],
        },
    }


def _trigger(of: Deployable) -> Object:
    settings = of.settings
    if settings.scale_query is None and settings.target_in_flight is None:
        value = {"value": str(settings.target_cpu)}
        return {"type": "cpu", "metricType": "Utilization", "metadata": value}
    threshold = settings.scale_threshold or settings.target_in_flight or 1
    found: Object = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": settings.prometheus,
            "query": settings.scale_query or _in_flight_query(of),
            "threshold": _plain(threshold),
        },
    }
    if settings.scaler_auth:
        found["authenticationRef"] = {"name": settings.scaler_auth}
    return found


def _in_flight_query(of: Deployable) -> str:
    namespace = f'namespace="{of.namespace}",' if of.namespace else ""
    return f'sum({IN_FLIGHT}{{{namespace}pod=~"{names_of(of).base}-[a-z0-9]+-[a-z0-9]+"}})'


def _quantity(value: float) -> str:
    """`8`, or `1500m` for one and a half."""
    return str(int(value)) if value == int(value) else f"{round(value * 1000)}m"


def _plain(value: float) -> str:
    """Without an exponent: `0.00001`, `1000000`."""
    text = f"{Decimal(repr(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
