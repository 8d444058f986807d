"""The least that Fieldpost needs in a namespace, as a Role.

What is asked of the API beyond this table is a defect: a test runs deployments against an API that
refuses everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from serve.targets.kubernetes.kinds import CORE, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve.targets.kubernetes.kinds import Kind

Object = dict[str, Any]

NAME = "fieldpost"
# To apply on a server is to patch, and to create where there is nothing yet.
_OWN = ("create", "delete", "get", "list", "patch")


class Allowed(NamedTuple):
    """What may be done with some resources of a group.

    Attributes:
        group: Empty for the core's.
        resources: `deployments`, `pods/log`.
        verbs: `get`, `patch`.
    """

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]


def allowed() -> list[Allowed]:
    """All that the client asks for, for deployments, endpoints and batch scoring."""
    return [
        *_by_group((*CORE, *OPTIONAL)),
        Allowed("apps", ("deployments",), ("watch",)),
        Allowed("apps", ("replicasets",), ("list",)),
        Allowed("", ("pods",), ("list", "watch")),
        Allowed("", ("pods/log",), ("get",)),
        Allowed("", ("events",), ("list",)),
        # To score, and to read what pods have counted, through the API.
        Allowed("", ("services/proxy",), ("create", "get")),
        Allowed("", ("pods/proxy",), ("get",)),
        Allowed("batch", ("jobs",), ("create", "delete", "get", "patch")),
        Allowed("gateway.networking.k8s.io", ("gateways",), ("get",)),
    ]


def _by_group(kinds: Iterable[Kind]) -> Iterable[Allowed]:
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        groups.setdefault(kind.group, []).append(kind.plural)
    for group, plurals in groups.items():
        yield Allowed(group, tuple(sorted(plurals)), _OWN)


def objects(namespace: str = "default", account: str = NAME) -> tuple[Object, ...]:
    """A ServiceAccount, a Role and the RoleBinding between them.

    Args:
        namespace: The one in which Fieldpost deploys.
        account: The ServiceAccount's name.
    """
    role = {
        **_head("rbac.authorization.k8s.io/v1", "Role", NAME, namespace),
        "rules": [_rule(each) for each in allowed()],
    }
    binding = {
        **_head("rbac.authorization.k8s.io/v1", "RoleBinding", NAME, namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    return _head("v1", "ServiceAccount", account, namespace), role, binding


def _rule(of: Allowed) -> Object:
    return {"apiGroups": [of.group], "resources": list(of.resources), "verbs": list(of.verbs)}


def _head(api: str, kind: str, name: str, namespace: str) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": api, "kind": kind, "metadata": metadata}
