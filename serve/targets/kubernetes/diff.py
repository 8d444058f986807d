"""What an apply would change: the cluster's own answer to a dry run, beside what is there."""

from __future__ import annotations

import copy
import difflib
from typing import TYPE_CHECKING, Any, Literal

from serve.targets.base import Difference
from serve.targets.kubernetes.kinds import Object, title_of
from serve.targets.kubernetes.lines import yaml_lines
from serve.targets.kubernetes.ownership import others_own, owns_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NOISE = (
    *("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"),
    *("selfLink", "deletionTimestamp"),
)
_SECRET = "***"  # noqa: S105 - a mask


def difference(live: Object | None, after: Object | None) -> Difference:
    """Compares an object with what it would be; values of Secrets are masked.

    Args:
        live: As it is; None for one that there is not.
        after: As it would be; None for one that would go.
    """
    title = title_of(after or live or {})
    before, then = plain(live), plain(after)
    if before == then:
        return Difference(object=title, change="none")
    lines = tuple(_lines(_masked(before, then, "old"), _masked(then, before, "new")))
    change: Literal["create", "update", "delete"] = "update"
    if live is None or after is None:
        change = "create" if live is None else "delete"
    return Difference(object=title, change=change, lines=lines)


def differences(pairs: Iterable[tuple[Object | None, Object | None]]) -> list[Difference]:
    """One for each pair."""
    return [difference(live, after) for live, after in pairs]


def shown(found: Sequence[Difference]) -> str:
    """For people: only what changes, and that nothing does but the revision's number."""
    told = [each for each in found if each.change != "none"]
    if not told:
        return "Nothing would change but the number of the revision: the same pods, started anew."
    heads = {"create": "would be made", "update": "would change", "delete": "would be removed"}
    blocks = ["\n".join([f"{each.object} {heads[each.change]}:", *each.lines]) for each in told]
    return "\n\n".join(blocks)


def without_default_replicas(live: Object | None, after: Object) -> Object:
    """The object as it would be, where we leave the number of pods to a scaler.

    A dry run shows the default there; `Applier` sees to it that the number stays what it is.
    """
    owned = owns_field(after, "spec", "replicas") or others_own(after, "spec", "replicas")
    if live is None or after.get("kind") != "Deployment" or owned:
        return after
    return {**after, "spec": {**after["spec"], "replicas": live["spec"]["replicas"]}}


def plain(item: Object | None) -> Object:
    """An object without what the cluster itself writes into it."""
    if item is None:
        return {}
    found = {key: value for key, value in item.items() if key != "status"}
    metadata = {k: v for k, v in (item.get("metadata") or {}).items() if k not in _NOISE}
    annotations = {
        key: text
        for key, text in (metadata.get("annotations") or {}).items()
        if not key.startswith("deployment.kubernetes.io/")
    }
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    return {**found, "metadata": metadata}


def as_yaml(items: Sequence[Object]) -> str:
    """Documents as YAML, each in the order in which people write them."""
    import yaml  # noqa: PLC0415 - heavy

    return yaml.safe_dump_all(items, sort_keys=False, allow_unicode=True, width=100)


def masked_secrets(item: Object) -> Object:
    """The object, a Secret's values masked."""
    if item.get("kind") != "Secret":
        return item
    found = copy.deepcopy(item)
    for part in ("data", "stringData"):
        if part in found:
            found[part] = dict.fromkeys(found[part], _SECRET)
    return found


def _masked(item: Object, other: Object, side: str) -> Object:
    """A Secret whose values are masked, those that change so that the change is seen."""
    if item.get("kind") != "Secret" or "data" not in item:
        return item
    found = copy.deepcopy(item)
    theirs: dict[str, Any] = other.get("data") or {}
    for key, value in item["data"].items():
        changed = key in theirs and theirs[key] != value
        found["data"][key] = f"{_SECRET} ({side})" if changed else _SECRET
    return found


def _lines(before: Object, after: Object) -> list[str]:
    old, new = (yaml_lines(each) if each else [] for each in (before, after))
    lines = list(difflib.unified_diff(old, new, lineterm="", n=3))[2:]
    return [line for line in lines if not line.startswith("@@")]
