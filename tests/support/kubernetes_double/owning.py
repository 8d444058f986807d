"""What an apply and an update make of an object and of its `managedFields`."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from tests.support.kubernetes_double import merging
from tests.support.kubernetes_double.merging import Object, Path
from tests.support.kubernetes_double.schema import Node

_OURS = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation")
_UNOWNED = {("f:apiVersion",), ("f:kind",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace")}


class Owner(NamedTuple):
    """Who owns fields, and by what it got them."""

    manager: str
    operation: str
    subresource: str = ""


class ConflictingError(Exception):
    """Others own what would be changed."""

    def __init__(self, fields: list[tuple[Path, Owner]]) -> None:
        super().__init__(fields)
        self.fields = fields


Owned = dict[Owner, set[Path]]


def read(item: Object) -> Owned:
    """Who owns what of an object."""
    return {
        Owner(each["manager"], each["operation"], each.get("subresource", "")): merging.from_tree(
            each.get("fieldsV1") or {}
        )
        for each in (item.get("metadata") or {}).get("managedFields") or ()
    }


def write(item: Object, owned: Owned, api_version: str, now: str, before: Object | None) -> None:
    """Puts the owners into the object; times of what has not changed stay."""
    old = {
        (each["manager"], each["operation"], each.get("subresource", "")): each
        for each in ((before or {}).get("metadata") or {}).get("managedFields") or ()
    }
    entries = []
    for owner, paths in owned.items():
        tree = merging.to_tree(paths)
        was = old.get((owner.manager, owner.operation, owner.subresource))
        entry: dict[str, Any] = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": api_version,
            "time": was["time"] if was and was["fieldsV1"] == tree else now,
            "fieldsType": "FieldsV1",
            "fieldsV1": tree,
        }
        if owner.subresource:
            entry["subresource"] = owner.subresource
        if paths:
            entries.append(entry)
    item["metadata"]["managedFields"] = entries


def applied(
    live: Object | None, config: Object, owner: Owner, node: Node, *, force: bool
) -> tuple[Object, Owned]:
    """The object after an apply, and who owns what of it.

    Raises:
        ConflictingError: Without `force`.
        KeyError: A field that there is not.
    """
    given = _without_ours(config)
    wanted = merging.fields_of(given, node) - _UNOWNED
    before = live or {key: config[key] for key in ("apiVersion", "kind")}
    owned = read(before)
    others = {who: paths for who, paths in owned.items() if who != owner}
    found = merging.merged(before, given, node)
    differing = merging.changed(wanted, before, found, node)
    conflicts = [(path, who) for who, paths in others.items() for path in sorted(paths & differing)]
    if conflicts and not force:
        raise ConflictingError(conflicts)
    others = {who: paths - differing for who, paths in others.items()}
    kept: set[Path] = set().union(*others.values())
    still = kept | wanted
    given_up = {path for path in owned.get(owner, set()) - still if not _leads_to(path, still)}
    found = merging.removed(found, _outermost(given_up), node)
    # With an entry of a list goes what others own in it, where none of them owns the entry itself.
    others = {who: merging.present(paths, found, node) for who, paths in others.items()}
    return found, {**others, owner: wanted}


def updated(before: Object | None, after: Object, owner: Owner, node: Node) -> tuple[Object, Owned]:
    """The object after a create, an update or a patch, and who owns what of it."""
    found = copy.deepcopy(after)
    clean = _without_ours(found)
    leaves = merging.fields_of(clean, node) - _UNOWNED
    old = before or {}
    owned = read(old)
    differing = merging.changed(leaves, old, found, node)
    owned = {
        who: {path for path in paths - (differing if who != owner else set()) if path in leaves}
        for who, paths in owned.items()
    }
    owned[owner] = owned.get(owner, set()) | differing
    return found, owned


def _without_ours(item: Object) -> Object:
    metadata = {k: v for k, v in (item.get("metadata") or {}).items() if k not in _OURS}
    return {**{k: v for k, v in item.items() if k != "status"}, "metadata": metadata}


def _leads_to(path: Path, still: set[Path]) -> bool:
    """Whether what was empty holds fields now."""
    return any(each[: len(path)] == path for each in still)


def _outermost(paths: set[Path]) -> set[Path]:
    """Entries of lists instead of the fields in them, where both are given up."""
    entries = {path[:-1] for path in paths if path[-1] == "."}
    return {
        path
        for path in paths
        if path[-1] == "." or not any(path[: len(entry)] == entry for entry in entries)
    }
