"""The kinds of objects that Fieldpost knows, and where a cluster's API has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from scoring.errors import UsageError

Object = dict[str, Any]
"""An object as the API has it: `apiVersion`, `kind`, `metadata` and its own parts."""


class Kind(NamedTuple):
    """A kind of objects.

    Attributes:
        api_version: `v1`, or `GROUP/VERSION`.
        kind: `Deployment`.
        plural: As paths have it: `deployments`.
        namespaced: Whether its objects are in namespaces.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core's."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version within the group."""
        return self.api_version.rpartition("/")[2]

    @property
    def resource(self) -> str:
        """As rules and messages name it: `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


CORE = (
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "Secret", "secrets"),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Service", "services"),
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("networking.k8s.io/v1", "Ingress", "ingresses"),
)
"""What every cluster has and a deployment may consist of."""

OPTIONAL = (
    Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
    Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors"),
    Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
)
"""What a deployment may consist of where the cluster has been extended."""

OTHERS = (
    Kind("v1", "Pod", "pods"),
    Kind("v1", "Event", "events"),
    Kind("v1", "Namespace", "namespaces", namespaced=False),
    Kind("v1", "Node", "nodes", namespaced=False),
    Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Kind("apps/v1", "ReplicaSet", "replicasets"),
    Kind("batch/v1", "Job", "jobs"),
    Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    Kind("gateway.networking.k8s.io/v1", "Gateway", "gateways"),
    Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
)
"""What is looked at, or belongs to other parts."""

_BY_NAME = {each.kind: each for each in (*CORE, *OPTIONAL, *OTHERS)}


def find_kind(kind: Kind | str) -> Kind:
    """The kind of this name.

    Raises:
        UsageError: It is none of those that Fieldpost knows.
    """
    if isinstance(kind, Kind):
        return kind
    try:
        return _BY_NAME[kind]
    except KeyError:
        raise UsageError(f"Fieldpost knows no kind {kind!r} of Kubernetes objects.") from None


def kind_of(item: Mapping[str, Any]) -> Kind:
    """The kind of an object, at the version that the object says.

    Raises:
        UsageError: It is none of those that Fieldpost knows.
    """
    found = find_kind(str(item.get("kind", "")))
    return found._replace(api_version=str(item.get("apiVersion") or found.api_version))


def name_of(item: Mapping[str, Any]) -> str:
    """The name of an object."""
    return str((item.get("metadata") or {}).get("name", ""))


def title_of(item: Mapping[str, Any]) -> str:
    """An object as messages name it: `Deployment iris`."""
    return f"{item.get('kind', 'object')} {name_of(item)}"
