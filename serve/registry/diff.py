"""What differs between two model versions; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from serve.registry.records import Blob, Change, FileRecord, ModelDiff, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FIELDS = (
    *("format", "runtime", "serves", "primary", "description", "pickle_trusted", "trusted_types"),
    *("made_with", "folders"),
)
_PACKAGE = re.compile(r"[A-Za-z0-9._-]+(\[[^\]]*\])?")


def compare(before: ModelVersion, after: ModelVersion) -> ModelDiff:
    """The differences from one version to another; their names, numbers and dates aside."""
    old = {file.path: file for file in before.files}
    new = {file.path: file for file in after.files}
    differences: dict[str, Any] = {
        "files_added": tuple(new[path] for path in sorted(new.keys() - old.keys())),
        "files_removed": tuple(old[path] for path in sorted(old.keys() - new.keys())),
        "files_changed": _changed_files(old, new),
        "fields": _changes(_fields(before), _fields(after)),
        "schema": _changes(_flat(before.schema), _flat(after.schema)),
        "tags": _changes(before.tags, after.tags),
        "metrics": _changes(before.metrics, after.metrics),
        "requirements": _changes(_pins(before.requirements), _pins(after.requirements)),
    }
    identical = not any(differences.values())
    return ModelDiff(before=before.ref, after=after.ref, identical=identical, **differences)


def _changed_files(
    old: Mapping[str, FileRecord], new: Mapping[str, FileRecord]
) -> dict[str, Change]:
    return {
        path: Change(before=_blob(old[path]), after=_blob(new[path]))
        for path in sorted(old.keys() & new.keys())
        if old[path] != new[path]
    }


def _blob(file: FileRecord) -> Blob:
    return Blob(digest=file.digest, size=file.size)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    return {
        key: Change(before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def _fields(version: ModelVersion) -> dict[str, Any]:
    fields = {name: getattr(version, name) for name in _FIELDS}
    return fields | {"compiled": version.compiled and version.compiled.digest}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by path: `inputs.sepal.dtype`; a list of named things goes by their names."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, list | tuple) and all(_is_named(each) for each in value):
        value = {each["name"]: each for each in value}
    if not isinstance(value, dict):
        return {} if value is None else {path: value}
    leaves: dict[str, Any] = {}
    for key, child in value.items():
        leaves |= _flat(child, f"{path}.{key}" if path else str(key))
    return leaves


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and "name" in value


def _pins(requirements: Iterable[str]) -> dict[str, str]:
    pins = {}
    for requirement in requirements:
        match = _PACKAGE.match(requirement)
        name = match.group() if match else requirement
        pins[name.lower()] = requirement[len(name) :].strip()
    return pins
