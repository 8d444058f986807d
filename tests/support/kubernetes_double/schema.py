"""What the official OpenAPI says of fields: which there are, and how lists and maps merge."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

_FOLDER = "kubernetes-json-schema/v1.36.0-local/_definitions.json"
_STRICT = "kubernetes-json-schema/v1.36.0-local-strict"
_REF = "#/$defs/"
_KEY_DEFAULTS = {"protocol": "TCP"}

Node = dict[str, Any] | None
"""A schema; None where nothing is known: the object of a custom resource."""


class ListType(NamedTuple):
    """How a list merges.

    Attributes:
        kind: `atomic`, `set` or `map`.
        keys: Of a `map`.
    """

    kind: str
    keys: tuple[str, ...] = ()


@cache
def _definitions() -> dict[str, Any]:
    folder = Path(kubernetes_validate.__file__).parent
    document: dict[str, Any] = json.loads((folder / _FOLDER).read_text())
    return dict(document["$defs"])


@cache
def _by_kind() -> dict[tuple[str, str], str]:
    found = {}
    for name, node in _definitions().items():
        for each in node.get("x-kubernetes-group-version-kind") or ():
            group = f"{each['group']}/" if each["group"] else ""
            found[group + each["version"], each["kind"]] = name
    return found


def of(api_version: str, kind: str) -> Node:
    """The schema of a kind; None for custom ones."""
    name = _by_kind().get((api_version, kind))
    return _definitions()[name] if name else None


@cache
def validator(api_version: str, kind: str) -> Draft202012Validator:
    """What judges objects of a kind; made once, since that takes longer than judging."""
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.partition(".")[0], version]))
    schema = _read(f"{name}.json")
    definitions = Resource.from_contents(_read("_definitions.json"))
    registry = definitions @ (Resource.from_contents(schema) @ Registry())
    return Draft202012Validator(schema, registry=registry)


@cache
def _read(name: str) -> dict[str, Any]:
    folder = Path(kubernetes_validate.__file__).parent / _STRICT
    return dict(json.loads((folder / name).read_text()))


def resolved(node: Node) -> Node:
    """The schema itself, where it was only a reference to it."""
    if node is not None and "$ref" in node:
        return {**_definitions()[node["$ref"].removeprefix(_REF)], **_extensions(node)}
    return node


def _extensions(node: dict[str, Any]) -> dict[str, Any]:
    return {key: text for key, text in node.items() if key.startswith("x-kubernetes")}


def child(node: Node, key: str) -> Node:
    """The schema of a field or an entry.

    Raises:
        KeyError: There is no such field.
    """
    node = resolved(node)
    if node is None:
        return None
    properties = node.get("properties")
    if properties and key in properties:
        return resolved(properties[key])
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        return resolved(more)
    if properties and more in (None, False):
        raise KeyError(key)
    return None


def item(node: Node) -> Node:
    """The schema of a list's items."""
    node = resolved(node)
    return None if node is None else resolved(node.get("items"))


def list_type(node: Node) -> ListType:
    """How a list merges; as a whole where nothing is said."""
    node = resolved(node) or {}
    kind = str(node.get("x-kubernetes-list-type", "atomic"))
    return ListType(kind, tuple(node.get("x-kubernetes-list-map-keys") or ()))


def is_atomic(node: Node) -> bool:
    """Whether a map merges as a whole."""
    return (resolved(node) or {}).get("x-kubernetes-map-type") == "atomic"


def key_of(entry: dict[str, Any], keys: tuple[str, ...]) -> str:
    """What tells an entry of a list of type `map` from the others."""
    values = {key: entry.get(key, _KEY_DEFAULTS.get(key)) for key in keys}
    given = {k: v for k, v in values.items() if v is not None}
    return json.dumps(given, sort_keys=True, separators=(",", ":"))
