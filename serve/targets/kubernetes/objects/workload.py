"""The Deployment, its ServiceAccount and its PodDisruptionBudget."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from serve.targets.kubernetes.objects.meta import Object, head, selector_of
from serve.targets.kubernetes.objects.pod import template
from serve.targets.kubernetes.objects.probes import grace_s

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable

_HISTORY = 3
_PULL_S = 300
"""For a node to fetch the image, before a rollout counts as stuck."""


def deployment(of: Deployable) -> Object:
    """New pods answer before old ones go. A scaler has the number of pods to itself."""
    settings = of.settings
    found: Object = {
        "replicas": settings.replicas,
        "revisionHistoryLimit": _HISTORY,
        "progressDeadlineSeconds": deadline_s(of),
        "selector": {"matchLabels": selector_of(of)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0},
        },
        "template": template(of),
    }
    if settings.scales:
        del found["replicas"]
    return {**head(of, "apps/v1", "Deployment"), "spec": found}


def deadline_s(of: Deployable) -> int:
    """How long a rollout may stand still."""
    settings = of.settings
    return math.ceil(settings.ready_timeout_s) + grace_s(settings) + _PULL_S


def service_account(of: Deployable) -> Object | None:
    """An identity without a token and without a right; None where there is another."""
    if of.settings.service_account:
        return None
    return {**head(of, "v1", "ServiceAccount"), "automountServiceAccountToken": False}


def disruption_budget(of: Deployable) -> Object:
    """A quarter of the pods (one at least) may be evicted at once, and broken ones always."""
    return {
        **head(of, "policy/v1", "PodDisruptionBudget"),
        "spec": {
            "maxUnavailable": "25%",
            "selector": {"matchLabels": selector_of(of)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
