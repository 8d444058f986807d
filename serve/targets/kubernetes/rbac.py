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
_OWN = ("create", "delete", "get", "list", "patch", "watch")
_LOOKING = ("get", "list", "watch")


class Allowed(NamedTuple):
    """What may be done with some resources of a group.

    Attributes:
        group: Empty for the core's.
        resources: `deployments`, `pods/log`.
        verbs: `get`, `patch`.
        names: Only objects of these names; none: all.
    """

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


def allowed(namespace: str = "", *, batch: bool = True) -> list[Allowed]:
    """All that the client asks for.

    Args:
        namespace: Whose end is told from its own object; empty where it is not known.
        batch: Batch scoring too, whose Jobs are Kubernetes' own.
    """
    found = [*_by_group((*CORE, *OPTIONAL))]
    found += [
        Allowed("", ("pods",), _LOOKING),
        Allowed("", ("pods/log",), ("get",)),
        Allowed("", ("events",), ("list",)),
        Allowed("apps", ("replicasets",), _LOOKING),
    ]
    if batch:
        found.append(Allowed("batch", ("jobs",), _OWN))
    if namespace:
        found.append(Allowed("", ("namespaces",), ("get",), (namespace,)))
    return found


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
        "rules": [_rule(each) for each in allowed(namespace)],
    }
    binding = {
        **_head("rbac.authorization.k8s.io/v1", "RoleBinding", NAME, namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    return _head("v1", "ServiceAccount", account, namespace), role, binding


def _rule(of: Allowed) -> Object:
    rule: Object = {
        "apiGroups": [of.group],
        "resources": list(of.resources),
        "verbs": list(of.verbs),
    }
    return rule | ({"resourceNames": list(of.names)} if of.names else {})


def _head(api: str, kind: str, name: str, namespace: str) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": api, "kind": kind, "metadata": metadata}
