"""The API of the double: requests to answers, without HTTP."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from serve.targets.kubernetes.kinds import Kind
from tests.support.kubernetes_double import answers
from tests.support.kubernetes_double.answers import StatusError
from tests.support.kubernetes_double.store import Object, Store, now

_TERM = re.compile(r"[^,()]+(?:\([^)]*\))?")


class Ask(NamedTuple):
    """A request.

    Attributes:
        method: Of HTTP.
        path: Without the query, in steps.
        query: First values.
        kind: Content type of the body.
        body: Its bytes.
        user: Who asks.
    """

    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    content_type: str
    body: bytes
    user: str


class Place(NamedTuple):
    """What a path names."""

    kind: Kind
    namespace: str
    name: str
    sub: str


Denied = Callable[[str, str, str, str], bool]


class Api:
    """Answers requests from a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.denied: Denied = lambda _user, _verb, _resource, _namespace: False

    def answer(self, ask: Ask) -> tuple[int, Any]:
        """Status and document of a request that is no watch and no log."""
        if ask.method == "GET":
            told = self._discovery(ask.path)
            if told is not None:
                return 200, told
        place = self.place(ask)
        self.permit(ask, place)
        if ask.method == "GET" and not place.name:
            return 200, self._list(place, ask)
        if ask.method == "GET":
            return 200, self._get(place)
        if ask.method == "DELETE":
            return 200, self._delete(place, ask)
        if ask.method == "POST":
            return 201, self._post(place, ask)
        if ask.method == "PATCH":
            return self._patch(place, ask)
        if ask.method == "PUT":
            return 200, self._put(place, ask)
        raise StatusError(405, "the server does not allow this method on the requested resource")

    def _discovery(self, path: tuple[str, ...]) -> Object | None:
        """What the cluster tells of itself; None for paths of objects."""
        if path == ("version",):
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0-double"}
        if path == ("api",):
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == ("apis",):
            return self._groups()
        if (path[0], len(path)) in (("api", 2), ("apis", 3)):
            return self._kinds("/".join(path[1:]))
        return None

    def place(self, ask: Ask) -> Place:
        """What the path names; 404 for nothing."""
        steps = list(ask.path)
        group = steps.pop(1) if steps[:1] == ["apis"] else ""
        if steps[:1] not in (["api"], ["apis"]) or len(steps) < 3:
            raise StatusError(404, "the server could not find the requested resource")
        version, rest = steps[1], steps[2:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = (*rest, "", "", "")[:3]
        return Place(self.store.find_kind(group, version, plural), namespace, name, sub)

    def permit(self, ask: Ask, place: Place, verb: str = "") -> None:
        """403 where the user may not."""
        verbs = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
        verb = verb or verbs.get(ask.method, "get" if place.name else "list")
        plural = f"{place.kind.plural}/{place.sub}" if place.sub else place.kind.plural
        if self.denied(ask.user, verb, plural, place.namespace):
            raise answers.denied(
                ask.user, verb, plural, place.kind.group, place.namespace, place.name
            )

    def matches(self, item: Object, ask: Ask) -> bool:
        """Whether an object fits the selectors of a request."""
        labels = item["metadata"].get("labels") or {}
        return _fits(labels, ask.query.get("labelSelector", "")) and _has_fields(
            item, ask.query.get("fieldSelector", "")
        )

    def _groups(self) -> Object:
        groups = {}
        for each in self.store.kinds.values():
            version = {"groupVersion": each.api_version, "version": each.version}
            groups[each.group] = {
                "name": each.group,
                "versions": [version],
                "preferredVersion": version,
            }
        found = [group for name, group in groups.items() if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}

    def _kinds(self, group_version: str) -> Object:
        found = [each for each in self.store.kinds.values() if each.api_version == group_version]
        if not found:
            raise StatusError(404, "the server could not find the requested resource")
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": [
                {
                    "name": each.plural,
                    "singularName": each.kind.lower(),
                    "kind": each.kind,
                    "namespaced": each.namespaced,
                    "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
                }
                for each in found
            ],
        }

    def _list(self, place: Place, ask: Ask) -> Object:
        items, version = self.store.list(place.kind, place.namespace or None)
        items = [_bare(each) for each in items if self.matches(each, ask)]
        start, limit = int(ask.query.get("continue") or 0), int(ask.query.get("limit") or 10**9)
        more = {"continue": str(start + limit)} if len(items) > start + limit else {}
        return {
            "apiVersion": place.kind.api_version,
            "kind": f"{place.kind.kind}List",
            "metadata": {"resourceVersion": str(version), **more},
            "items": items[start : start + limit],
        }

    def _get(self, place: Place) -> Object:
        return self.store.get(place.kind, place.namespace, place.name)

    def _delete(self, place: Place, ask: Ask) -> Object:
        options = _decoded(ask.body) if ask.body else {}
        uid = ((options or {}).get("preconditions") or {}).get("uid", "")
        dry = ask.query.get("dryRun") == "All"
        self.store.delete(place.kind, place.namespace, place.name, uid=uid, dry=dry)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _post(self, place: Place, ask: Ask) -> Object:
        item = _document(ask)
        if self.store.find(place.kind, place.namespace, item["metadata"]["name"]) is not None:
            name = item["metadata"]["name"]
            raise StatusError(409, f'{place.kind.plural} "{name}" already exists', "AlreadyExists")
        return self.store.update(
            place.kind, place.namespace, item, _manager(ask), dry=ask.query.get("dryRun") == "All"
        )

    def _put(self, place: Place, ask: Ask) -> Object:
        item = _document(ask)
        live = self.store.get(place.kind, place.namespace, place.name)
        version = item["metadata"].get("resourceVersion")
        if version not in (None, live["metadata"]["resourceVersion"]):
            raise StatusError(
                409,
                f'Operation cannot be fulfilled on {place.kind.resource} "{place.name}": the '
                "object has been modified; please apply your changes to the latest version and "
                "try again",
            )
        item["metadata"] = {**live["metadata"], **item["metadata"]}
        return self.store.update(place.kind, place.namespace, item, _manager(ask))

    def _patch(self, place: Place, ask: Ask) -> tuple[int, Object]:
        body = _document(ask)
        dry = ask.query.get("dryRun") == "All"
        if ask.content_type == "application/apply-patch+yaml":
            manager = ask.query.get("fieldManager")
            if not manager:
                raise StatusError(
                    400, "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value"
                )
            item, new = self.store.apply(
                place.kind,
                place.namespace,
                {**body, "metadata": {**body["metadata"], "name": place.name}},
                manager,
                force=ask.query.get("force") == "true",
                dry=dry,
            )
            return (201 if new else 200), item
        if ask.content_type != "application/merge-patch+json":
            raise StatusError(415, f"the body of the request was in {ask.content_type}")
        live = self.store.get(place.kind, place.namespace, place.name)
        merged = _merge_patch(copy.deepcopy(live), body)
        found = self.store.update(
            place.kind, place.namespace, merged, _manager(ask), subresource=place.sub, dry=dry
        )
        return 200, found


def _document(ask: Ask) -> Object:
    found = _decoded(ask.body)
    if not isinstance(found, dict):
        raise StatusError(400, "the object provided is unrecognized")
    found.setdefault("metadata", {})
    return found


def _decoded(body: bytes) -> Any:
    """JSON at once: reading it as the YAML that it is takes a busy machine seconds."""
    try:
        return json.loads(body)
    except ValueError:
        return yaml.safe_load(body)


def _manager(ask: Ask) -> str:
    return ask.query.get("fieldManager") or "unknown"


def _bare(item: Object) -> Object:
    """Items of lists carry neither their kind nor their version."""
    return {key: value for key, value in item.items() if key not in ("apiVersion", "kind")}


def _merge_patch(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    found = value if isinstance(value, dict) else {}
    for key, inner in patch.items():
        if inner is None:
            found.pop(key, None)
        else:
            found[key] = _merge_patch(found.get(key), inner)
    return found


def _fits(labels: dict[str, str], selector: str) -> bool:
    for term in filter(None, (each.strip() for each in _TERM.findall(selector))):
        found = re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", term)
        if found:
            values = {each.strip() for each in found[3].split(",")}
            if (labels.get(found[1]) in values) != (found[2] == "in"):
                return False
        elif "!=" in term:
            key, _, text = term.partition("!=")
            if labels.get(key) == text:
                return False
        elif "=" in term:
            key, _, text = term.replace("==", "=").partition("=")
            if labels.get(key) != text:
                return False
        elif (term.lstrip("!") in labels) == term.startswith("!"):
            return False
    return True


def _has_fields(item: Object, selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        key, _, text = term.partition("=")
        value: Any = item
        for step in key.split("."):
            value = (value or {}).get(step)
        if str(value) != text:
            return False
    return True


__all__ = ["Api", "Ask", "Place", "now"]
