"""All objects of a deployment, in the order in which they are applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.targets.kubernetes.objects import config, monitoring, network, scaling, workload
from serve.targets.kubernetes.objects.meta import Object

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable

__all__ = ["Object", "render"]


def render(of: Deployable) -> tuple[Object, ...]:
    """Plain documents, each with apiVersion, kind and metadata; what others need comes first."""
    made = (
        workload.service_account(of),
        config.config_map(of),
        config.secret(of),
        network.network_policy(of),
        network.service(of),
        workload.deployment(of),
        workload.disruption_budget(of),
        scaling.scaler(of),
        network.route(of),
        monitoring.service_monitor(of),
    )
    return tuple(each for each in made if each is not None)
