"""Server-side apply: who owns which fields, what merges, what conflicts.

Field sets are sets of paths; a path is a tuple of `f:NAME`, `k:{KEYS}` and `v:VALUE`, as
`managedFields` writes them. A path to an entry of a list itself ends with ".".
"""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.support.kubernetes_double import schema
from tests.support.kubernetes_double.schema import Node

Path = tuple[str, ...]
Object = dict[str, Any]
_MISSING = object()


def fields_of(value: Any, node: Node, path: Path = ()) -> set[Path]:
    """The leaves of what is given, as paths.

    Raises:
        KeyError: A field that the schema does not have; its text is the path.
    """
    if isinstance(value, dict) and not schema.is_atomic(node):
        if not value:
            return {path}
        found: set[Path] = set()
        for key, inner in value.items():
            try:
                known = schema.child(node, key)
            except KeyError:
                raise KeyError(text_of((*path, f"f:{key}"))) from None
            found |= fields_of(inner, known, (*path, f"f:{key}"))
        return found
    if isinstance(value, list):
        return _fields_of_list(value, node, path)
    return {path}


def _fields_of_list(value: list[Any], node: Node, path: Path) -> set[Path]:
    how = schema.list_type(node)
    if how.kind == "map":
        found: set[Path] = set()
        for entry in value:
            here = (*path, f"k:{schema.key_of(entry, how.keys)}")
            found |= {(*here, "."), *fields_of(entry, schema.item(node), here)}
        return found
    if how.kind == "set":
        return {(*path, f"v:{json.dumps(entry)}") for entry in value}
    return {path}


def merged(live: Any, config: Any, node: Node) -> Any:
    """What is there with what is applied put into it."""
    if isinstance(live, dict) and isinstance(config, dict) and not schema.is_atomic(node):
        found = dict(live)
        for key, inner in config.items():
            known = schema.child(node, key)
            found[key] = merged(live[key], inner, known) if key in live else copy.deepcopy(inner)
        return found
    if isinstance(live, list) and isinstance(config, list):
        return _merged_list(live, config, node)
    return copy.deepcopy(config)


def _merged_list(live: list[Any], config: list[Any], node: Node) -> list[Any]:
    how = schema.list_type(node)
    if how.kind == "set":
        return [*live, *(each for each in config if each not in live)]
    if how.kind != "map":
        return copy.deepcopy(config)
    inner = schema.item(node)
    given = {schema.key_of(each, how.keys): each for each in config}
    there = {schema.key_of(each, how.keys): each for each in live}
    # Of two orders the applied one counts; what only others have stays in front of what follows it.
    found = [
        merged(each, given[key], inner) if key in given else each for key, each in there.items()
    ]
    return [*found, *(copy.deepcopy(each) for key, each in given.items() if key not in there)]


def value_at(value: Any, path: Path, node: Node) -> Any:
    """What is at a path; a marker for nothing."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if step == ".":
        return True
    if step.startswith("f:"):
        key = step[2:]
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        return value_at(value[key], rest, schema.child(node, key))
    if not isinstance(value, list):
        return _MISSING
    if step.startswith("v:"):
        return True if json.loads(step[2:]) in value else _MISSING
    keys = schema.list_type(node).keys
    for entry in value:
        if schema.key_of(entry, keys) == step[2:]:
            return value_at(entry, rest, schema.item(node))
    return _MISSING


def changed(paths: set[Path], before: Any, after: Any, node: Node) -> set[Path]:
    """Those paths at which two objects differ."""
    return {path for path in paths if value_at(before, path, node) != value_at(after, path, node)}


def present(paths: set[Path], value: Any, node: Node) -> set[Path]:
    """Those paths at which there is something."""
    return {path for path in paths if value_at(value, path, node) is not _MISSING}


def removed(value: Any, paths: set[Path], node: Node) -> Any:
    """The object without what is at these paths; entries of lists go as a whole."""
    for path in sorted(paths, key=len, reverse=True):
        _remove(value, path[:-1] if path[-1:] == (".",) else path, node)
    return value


def _remove(value: Any, path: Path, node: Node) -> None:
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        key = step[2:]
        if not isinstance(value, dict) or key not in value:
            return
        if rest:
            _remove(value[key], rest, schema.child(node, key))
            if value[key] == {} or value[key] == []:
                del value[key]
        else:
            del value[key]
    elif isinstance(value, list):
        _remove_entry(value, step, rest, node)


def _remove_entry(value: list[Any], step: str, rest: Path, node: Node) -> None:
    if step.startswith("v:"):
        wanted = json.loads(step[2:])
        value[:] = [each for each in value if each != wanted]
        return
    keys = schema.list_type(node).keys
    for entry in list(value):
        if schema.key_of(entry, keys) == step[2:]:
            if rest:
                _remove(entry, rest, schema.item(node))
            else:
                value.remove(entry)


def to_tree(paths: set[Path]) -> Object:
    """Paths as `fieldsV1`."""
    tree: Object = {}
    for path in sorted(paths):
        place = tree
        for step in path:
            place = place.setdefault(step, {})
    return _folded(tree)


def _folded(tree: Object) -> Object:
    """Entries of which nothing but themselves is owned have no mark of their own."""
    if list(tree) == ["."]:
        return {}
    return {step: _folded(inner) for step, inner in tree.items()}


def from_tree(tree: Object, path: Path = ()) -> set[Path]:
    """The paths of `fieldsV1`."""
    found: set[Path] = set()
    for step, inner in tree.items():
        here = (*path, step)
        if inner:
            found |= from_tree(inner, here)
        else:
            found.add((*here, ".") if step.startswith("k:") else here)
    return found


def text_of(path: Path) -> str:
    """As causes of conflicts name it: `.spec.template.spec.containers[name="x"].image`."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            keys = json.loads(step[2:])
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in keys.items()) + "]"
        elif step.startswith("v:"):
            text += f"[={step[2:]}]"
    return text
