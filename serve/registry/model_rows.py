"""Model versions between their rows and their records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from scoring import digest as digests
from scoring.compilation import Compilation
from scoring.errors import NotFoundError, UsageError
from scoring.schema import ModelSchema
from serve.registry import names
from serve.registry.connection import Connection, Row
from serve.registry.records import Blob, FileRecord, ModelVersion
from serve.registry.statements import insert, where

TAGS = "fieldpost_model_tags"

_SHOWN_VERSIONS = 10

_SELECT = "SELECT v.* FROM fieldpost_model_versions v"
_SELECT_FILES = """
    SELECT f.* FROM fieldpost_model_files f
    JOIN fieldpost_model_versions v ON v.name = f.name AND v.version = f.version
"""
_SELECT_TAGS = """
    SELECT t.* FROM fieldpost_model_tags t
    JOIN fieldpost_model_versions v ON v.name = t.name AND v.version = t.version
"""
_NUMBERS = """
    SELECT version FROM fieldpost_model_versions WHERE name = :name ORDER BY version DESC
"""


class Condition(NamedTuple):
    """What versions have to meet.

    Attributes:
        text: SQL over the table of versions, which is `v`.
        values: Of its parameters.
    """

    text: str
    values: Mapping[str, object]


class Document(msgspec.Struct, frozen=True):
    """What the registry reads in `scoring.prepare.Prepared`; other fields are kept unread."""

    format: str = ""
    runtime: str = ""
    serves: str = ""
    primary: str = ""
    schema: ModelSchema | None = None
    compilation: Compilation | None = None
    made_with: dict[str, str] = {}
    requirements: tuple[str, ...] = ()
    native_requirements: tuple[str, ...] = ()
    pickle_trusted: bool = False
    trusted_types: tuple[str, ...] = ()


def document_columns(
    prepared: Mapping[str, Any] | bytes, paths: Iterable[str]
) -> dict[str, str | None]:
    """The columns that hold what is known of a model.

    Args:
        prepared: The document.
        paths: The version's files: `primary` is brought to the form that it has among them.

    Raises:
        UsageError: It is no JSON object, or a field that the registry reads has another type.
    """
    try:
        fields = (
            msgspec.json.decode(prepared, type=dict[str, Any])
            if isinstance(prepared, bytes)
            else dict(prepared)
        )
        fields["primary"] = _among(str(fields.get("primary") or ""), paths)
        text = msgspec.json.encode(fields, order="sorted").decode()
        known = msgspec.json.decode(text, type=Document)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise UsageError(f"The description of the model is not valid: {error}.") from error
    columns = {"format": known.format, "runtime": known.runtime, "serves": known.serves}
    return {**columns, "document": text}


def _among(primary: str, paths: Iterable[str]) -> str:
    """A path inside the registered folder begins with the folder's name among the files."""
    known = set(paths)
    if not primary or primary in known:
        return primary
    return next(iter(sorted(path for path in known if path.endswith(f"/{primary}"))), primary)


def encode_metrics(metrics: Mapping[str, Any]) -> str:
    """The metrics as JSON; raises `UsageError` where they are none."""
    try:
        text = msgspec.json.encode(dict(metrics), order="sorted", enc_hook=_plain_number).decode()
        return names.check_text(text, "The metrics")
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise UsageError(f"The metrics are no JSON object: {error}.") from error


def _plain_number(value: Any) -> Any:
    """NumPy's numbers and arrays, which are what training code has at hand."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def version_digest(records: Iterable[FileRecord]) -> str:
    """The digest of a version: of its sorted list of files, each with digest and size."""
    listed = [[each.path, each.digest, each.size] for each in sorted(records)]
    return digests.of_bytes(msgspec.json.encode({"files": listed}, order="sorted"))


def file_row(record: FileRecord) -> dict[str, Any]:
    """The columns of one file; those of its version come beside."""
    return {"path": record.path, "digest": record.digest or None, "size": record.size}


def insert_tags(connection: Connection, key: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """Adds tags to the version with this key."""
    if tags:
        rows = [{**key, "key": name, "value": value} for name, value in tags.items()]
        connection.execute_many(insert(TAGS, rows[0]), rows)


def is_named(name: str) -> Condition:
    """The versions of one model."""
    return Condition("v.name = :name", {"name": name})


def is_numbered(version: int) -> Condition:
    """The version of this number."""
    return Condition("v.version = :version", {"version": version})


def is_newest(name: str) -> Condition:
    """The newest version of one model."""
    newest = "SELECT MAX(version) FROM fieldpost_model_versions WHERE name = :name"
    return Condition(f"v.version = ({newest})", {"name": name})


def have_tags(tags: Mapping[str, str | None]) -> list[Condition]:
    """The versions that have all of these tags; None stands for any value."""
    return [_has_tag(*tag, number) for number, tag in enumerate(tags.items())]


def _has_tag(key: str, value: str | None, number: int) -> Condition:
    values: dict[str, object] = {f"key_{number}": names.check_tag_key(key)}
    same = ""
    if value is not None:
        values[f"value_{number}"] = names.check_text(value, f"The value of tag {key!r}")
        same = f" AND t.value = :value_{number}"
    text = (
        "EXISTS (SELECT 1 FROM fieldpost_model_tags t WHERE t.name = v.name "  # noqa: S608 - ours
        f"AND t.version = v.version AND t.key = :key_{number}{same})"
    )
    return Condition(text, values)


def read_one(connection: Connection, reference: names.Reference) -> ModelVersion:
    """The version that a reference names; raises `NotFoundError`, saying which there are."""
    name, number = reference
    wanted = is_newest(name) if number is None else is_numbered(number)
    found = read_versions(connection, [is_named(name), wanted])
    if not found:
        raise _not_found(connection, reference)
    return found[0]


def _not_found(connection: Connection, reference: names.Reference) -> NotFoundError:
    rows = connection.execute(_NUMBERS, name=reference.name)
    known = [f"{reference.name}:{row['version']}" for row in rows]
    if not known:
        return NotFoundError(
            f"There is no model {reference.name!r}.",
            hint="'fieldpost model list' shows those that there are; register one with "
            "'fieldpost model register NAME PATH'.",
        )
    more = " and older ones" if len(known) > _SHOWN_VERSIONS else ""
    return NotFoundError(
        f"The model {reference.name!r} has no version {reference.version}.",
        hint=f"There is {', '.join(known[:_SHOWN_VERSIONS])}{more}.",
    )


def read_versions(connection: Connection, conditions: Sequence[Condition]) -> list[ModelVersion]:
    """The versions that meet the conditions, with their files and tags."""
    condition = where(each.text for each in conditions)
    values = {name: value for each in conditions for name, value in each.values.items()}
    found = connection.execute(_SELECT + condition, **values)
    if not found:
        return []
    files: dict[tuple[str, int], list[FileRecord]] = defaultdict(list)
    for row in connection.execute(_SELECT_FILES + condition, **values):
        record = FileRecord(path=row["path"], digest=row["digest"] or "", size=row["size"])
        files[_key(row)].append(record)
    tags: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for row in connection.execute(_SELECT_TAGS + condition, **values):
        tags[_key(row)][row["key"]] = row["value"]
    return [_record(row, files[_key(row)], tags[_key(row)]) for row in found]


def _key(row: Row) -> tuple[str, int]:
    return row["name"], row["version"]


def _record(row: Row, files: list[FileRecord], tags: Mapping[str, str]) -> ModelVersion:
    known = msgspec.json.decode(row["document"], type=Document)
    compiled = row["compiled_digest"]
    dirty = row["source_dirty"]
    return ModelVersion(
        name=row["name"],
        version=row["version"],
        digest=row["digest"],
        files=tuple(sorted(each for each in files if each.digest)),
        folders=tuple(sorted(each.path for each in files if not each.digest)),
        compiled=Blob(digest=compiled, size=row["compiled_size"]) if compiled else None,
        tags=dict(sorted(tags.items())),
        description=row["description"],
        metrics=msgspec.json.decode(row["metrics"]),
        created_at=row["created_at"],
        created_by=row["created_by"],
        source_commit=row["source_commit"],
        source_dirty=None if dirty is None else bool(dirty),  # SQLite keeps 0 or 1
        **{name: getattr(known, name) for name in Document.__struct_fields__},
    )
