"""The objects of the double: versions, changes to watch, deletion, namespaces."""

from __future__ import annotations

import copy
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from serve.targets.kubernetes.kinds import CORE, OPTIONAL, OTHERS, Kind
from tests.support.kubernetes_double import answers, owning, schema
from tests.support.kubernetes_double.answers import StatusError
from tests.support.kubernetes_double.merging import text_of
from tests.support.kubernetes_double.owning import ConflictingError, Owner

Object = dict[str, Any]
_KEPT = 2000
_IMMUTABLE = {
    "Deployment": ("spec", "selector"),
    "ServiceAccount": (),
    "Job": ("spec", "template"),
}


class Change(NamedTuple):
    """Something that watches tell."""

    version: int
    type: str
    kind: Kind
    item: Object


class Store:
    """All objects of one cluster, safe for threads."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.kinds = {each.resource: each for each in (*CORE, *OTHERS)}
        self.items: dict[tuple[str, str, str], Object] = {}
        self.version = 100
        self.changes: deque[Change] = deque(maxlen=_KEPT)
        self.oldest = 0
        self.admission: list[Callable[[Kind, Object, bool], None]] = []
        for name in ("default", "kube-system"):
            self.add_namespace(name)

    def add_namespace(self, name: str) -> None:
        """Makes a namespace that is active."""
        item = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.put(self.kinds["namespaces"], {**item, "status": {"phase": "Active"}}, "ADDED")

    def extend(self) -> None:
        """Knows the kinds of the Gateway API, the Prometheus operator and KEDA from now on."""
        self.kinds |= {each.resource: each for each in OPTIONAL}

    def find_kind(self, group: str, version: str, plural: str) -> Kind:
        """The kind of a path; 404 for none."""
        found = self.kinds.get(f"{plural}.{group}" if group else plural)
        if found is None or found.version != version:
            raise StatusError(404, "the server could not find the requested resource")
        return found

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """An object; None for none."""
        with self.lock:
            return copy.deepcopy(self.items.get((kind.resource, namespace, name)))

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """An object; 404 for none."""
        found = self.find(kind, namespace, name)
        if found is None:
            raise answers.missing(kind.plural, kind.group, name)
        return found

    def list(self, kind: Kind, namespace: str | None) -> tuple[list[Object], int]:
        """Those of a kind, by name, and the version of this moment."""
        with self.lock:
            found = [
                copy.deepcopy(item)
                for (resource, space, _), item in sorted(self.items.items())
                if resource == kind.resource and namespace in (None, space)
            ]
            return found, self.version

    def apply(
        self, kind: Kind, namespace: str, config: Object, manager: str, *, force: bool, dry: bool
    ) -> tuple[Object, bool]:
        """Server-side apply; the object, and whether it is new."""
        node = schema.of(kind.api_version, kind.kind)
        name = str(config["metadata"]["name"])
        with self.lock:
            live = self.find(kind, namespace, name)
            owner = Owner(manager, "Apply")
            try:
                item, owned = owning.applied(live, config, owner, node, force=force)
            except ConflictingError as error:
                raise _conflict(error) from None
            except KeyError as error:
                raise _undeclared(kind, config, str(error.args[0])) from None
            return self._store(kind, namespace, live, item, owned, dry=dry), live is None

    def update(
        self,
        kind: Kind,
        namespace: str,
        item: Object,
        manager: str = "kubectl",
        *,
        subresource: str = "",
        dry: bool = False,
    ) -> Object:
        """Creates or replaces an object."""
        node = schema.of(kind.api_version, kind.kind)
        with self.lock:
            live = self.find(kind, namespace, str(item["metadata"]["name"]))
            owner = Owner(manager, "Update", subresource)
            found, owned = owning.updated(live, item, owner, node)
            return self._store(kind, namespace, live, found, owned, dry=dry)

    def set_status(self, kind: Kind, namespace: str, name: str, status: Object) -> None:
        """What a controller tells of an object; nothing where it is gone, or the same."""
        with self.lock:
            item = self.find(kind, namespace, name)
            if item is not None and item.get("status") != status:
                self.put(kind, {**item, "status": status}, "MODIFIED")

    def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str = "", dry: bool = False
    ) -> Object:
        """Deletes an object, or marks it where it has finalizers or is a pod; children follow."""
        with self.lock:
            item = self.get(kind, namespace, name)
            if uid and item["metadata"]["uid"] != uid:
                raise StatusError(
                    409,
                    f"Operation cannot be fulfilled on {kind.plural} {name!r}: the UID in the "
                    f"precondition ({uid}) does not match the UID in record",
                )
            if dry:
                return item
            if item["metadata"].get("finalizers") or (kind.kind == "Pod" and _runs(item)):
                if "deletionTimestamp" not in item["metadata"]:
                    item["metadata"]["deletionTimestamp"] = now()
                    self.put(kind, item, "MODIFIED")
                return item
            self.drop(kind, item)
            return item

    def drop(self, kind: Kind, item: Object) -> None:
        """Takes an object away, and what it owned."""
        with self.lock:
            metadata = item["metadata"]
            key = (kind.resource, metadata.get("namespace", ""), metadata["name"])
            if self.items.pop(key, None) is None:
                return
            self._announce(kind, item, "DELETED")
            for (resource, space, name), each in list(self.items.items()):
                owners = each["metadata"].get("ownerReferences") or ()
                if any(owner["uid"] == metadata["uid"] for owner in owners):
                    self.delete(self.kinds[resource], space, name)

    def put(self, kind: Kind, item: Object, type_: str) -> Object:
        """Stores an object as it is, with a new version."""
        with self.lock:
            self.version += 1
            item = copy.deepcopy(item)
            metadata = item["metadata"]
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", now())
            metadata["resourceVersion"] = str(self.version)
            self.items[kind.resource, metadata.get("namespace", ""), metadata["name"]] = item
            self._announce(kind, item, type_, bump=False)
            return copy.deepcopy(item)

    def since(self, kind: Kind, namespace: str, version: int) -> tuple[tuple[Change, ...], int]:
        """The changes after a version; 410 where they are no longer known."""
        with self.lock:
            if version < self.oldest:
                raise StatusError(
                    410, f"too old resource version: {version} ({self.oldest})", "Expired"
                )
            found = [
                each
                for each in self.changes
                if each.version > version
                and each.kind.resource == kind.resource
                and namespace in (None, each.item["metadata"].get("namespace", ""))
            ]
            return tuple(found), self.version

    def forget_changes(self) -> None:
        """Makes all versions up to now too old to watch from."""
        with self.lock:
            self.changes.clear()
            self.version += 1
            self.oldest = self.version
            self.lock.notify_all()

    def _store(
        self,
        kind: Kind,
        namespace: str,
        live: Object | None,
        item: Object,
        owned: owning.Owned,
        *,
        dry: bool,
    ) -> Object:
        item = copy.deepcopy(item)
        if kind.namespaced:
            item["metadata"]["namespace"] = namespace
            self._require_namespace(namespace, new=live is None)
        _default(item)
        for admit in self.admission:
            admit(kind, item, dry)
        _validate(kind, live, item)
        owning.write(item, owned, kind.api_version, now(), live)
        if live is not None and _same(live, item):
            return live
        metadata = item["metadata"]
        was = (live or {}).get("spec")
        generation = int((live or {"metadata": {}})["metadata"].get("generation", 0))
        metadata["generation"] = generation + (live is None or was != item.get("spec"))
        if dry:
            metadata.setdefault("uid", str(uuid.uuid4()))
            return item
        stored = self.put(kind, item, "ADDED" if live is None else "MODIFIED")
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self.drop(kind, stored)
        return stored

    def _require_namespace(self, name: str, *, new: bool) -> None:
        found = self.items.get(("namespaces", "", name))
        if found is None:
            raise answers.missing("namespaces", "", name)
        if new and found["status"]["phase"] == "Terminating":
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {name} is being terminated",
                "field": "metadata.namespace",
            }
            raise StatusError(
                403,
                f"unable to create new content in namespace {name} because it is being terminated",
                details={"causes": [cause]},
            )

    def _announce(self, kind: Kind, item: Object, type_: str, *, bump: bool = True) -> None:
        if bump:
            self.version += 1
            item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
        if len(self.changes) == _KEPT:
            self.oldest = self.changes[0].version
        self.changes.append(Change(self.version, type_, kind, copy.deepcopy(item)))
        self.lock.notify_all()


def now() -> str:
    """This second, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def walk_owned(store: Store, kind: Kind, owner: Object) -> Iterator[Object]:
    """The objects of a kind that an object owns."""
    for each in store.list(kind, owner["metadata"]["namespace"])[0]:
        references = each["metadata"].get("ownerReferences") or ()
        if any(one["uid"] == owner["metadata"]["uid"] for one in references):
            yield each


def _conflict(error: ConflictingError) -> StatusError:
    causes = []
    for path, owner in error.fields:
        by = f'"{owner.manager}"'
        if owner.subresource:
            by += f' with subresource "{owner.subresource}"'
        if owner.operation == "Update":
            by += " using apps/v1"
        message = f"conflict with {by}"
        causes.append(
            {"reason": "FieldManagerConflict", "message": message, "field": text_of(path)}
        )
    first = causes[0]
    return StatusError(
        409,
        f"Apply failed with {len(causes)} conflict{'s' * (len(causes) > 1)}: "
        f"{first['message']}: {first['field']}",
        details={"causes": causes},
    )


def _undeclared(kind: Kind, config: Object, field: str) -> StatusError:
    return StatusError(
        400,
        f"failed to create typed patch object ({config['metadata'].get('namespace', '')}/"
        f"{config['metadata']['name']}; {kind.api_version}, Kind={kind.kind}): {field}: field not "
        "declared in schema",
    )


def _default(item: Object) -> None:
    """The few defaults that tell whether a client can live with defaults."""
    spec = item.get("spec")
    if item["kind"] == "Namespace":
        item.setdefault("status", {"phase": "Active"})
    if item["kind"] == "Deployment" and isinstance(spec, dict):
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
        strategy = spec.setdefault("strategy", {})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxSurge", "25%")
            rolling.setdefault("maxUnavailable", "25%")
        _default_pod(spec["template"]["spec"])
    if item["kind"] == "Service" and isinstance(spec, dict):
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        if spec.get("clusterIP") is None:
            spec["clusterIP"] = "10.96.0.17"
        for port in spec.get("ports") or ():
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])


def _default_pod(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for container in spec["containers"]:
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        for port in container.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _validate(kind: Kind, live: Object | None, item: Object) -> None:
    name = item["metadata"]["name"]
    if live is not None:
        path = _IMMUTABLE.get(kind.kind, ())
        if path and live[path[0]].get(path[1]) != item[path[0]].get(path[1]):
            why = "Invalid value: field is immutable"
            raise answers.invalid(kind.kind, kind.group, name, ".".join(path), why)
        frozen = live.get("immutable") and kind.kind in ("Secret", "ConfigMap")
        if frozen and live.get("data") != item.get("data"):
            why = "Forbidden: field is immutable when `immutable` is set"
            raise answers.invalid(kind.kind, kind.group, name, "data", why)
    if schema.of(kind.api_version, kind.kind) is None or kind.kind == "Event":
        return
    clean = {
        **item,
        "metadata": {k: v for k, v in item["metadata"].items() if k != "managedFields"},
    }
    for error in schema.validator(kind.api_version, kind.kind).iter_errors(clean):
        where = ".".join(str(each) for each in error.path)
        raise answers.invalid(kind.kind, kind.group, name, where, error.message)


def _same(live: Object, item: Object) -> bool:
    """Whether nothing but times would change."""
    return _essence(live) == _essence(item)


def _essence(item: Object) -> Object:
    metadata = {
        key: value
        for key, value in item["metadata"].items()
        if key not in ("resourceVersion", "generation", "uid", "creationTimestamp")
    }
    return {**item, "metadata": metadata}


def _runs(pod: Object) -> bool:
    """A pod that was never on a node goes at once."""
    return bool(pod.get("spec", {}).get("nodeName"))
