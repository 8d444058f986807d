"""Model versions between their rows and their records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from scoring import digest as digests
from scoring.compilation import Compilation
from scoring.errors import NotFoundError, UsageError
from scoring.schema import ModelSchema
from serve.registry import names, tables
from serve.registry.records import Blob, FileRecord, ModelVersion

Condition = sa.ColumnElement[bool]

_SHOWN_VERSIONS = 10


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
        connection.execute(sa.insert(tables.model_tags), rows)


def is_version(table: sa.Table, name: str, version: int) -> tuple[Condition, Condition]:
    """The rows of one version in a table of models, files or tags."""
    return table.c.name == name, table.c.version == version


def has_tag(key: str, value: str | None) -> Condition:
    """The versions that have the tag; None stands for any value."""
    tags, versions = tables.model_tags.alias(), tables.model_versions
    conditions = [
        tags.c.name == versions.c.name,
        tags.c.version == versions.c.version,
        tags.c.key == names.check_tag_key(key),
    ]
    if value is not None:
        conditions.append(tags.c.value == names.check_text(value, f"The value of tag {key!r}"))
    return sa.exists().where(*conditions)


def read_one(connection: Connection, reference: names.Reference) -> ModelVersion:
    """The version that a reference names; raises `NotFoundError`, saying which there are."""
    table = tables.model_versions
    conditions: list[Condition] = [table.c.name == reference.name]
    if reference.version is not None:
        conditions.append(table.c.version == reference.version)
    else:
        newest = sa.select(sa.func.max(table.c.version)).where(*conditions).scalar_subquery()
        conditions.append(table.c.version == newest)
    found = read_versions(connection, conditions)
    if not found:
        raise _not_found(connection, reference)
    return found[0]


def _not_found(connection: Connection, reference: names.Reference) -> NotFoundError:
    table = tables.model_versions
    versions = connection.execute(
        sa.select(table.c.version)
        .where(table.c.name == reference.name)
        .order_by(table.c.version.desc())
    ).scalars()
    known = [f"{reference.name}:{version}" for version in versions]
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
    versions, files, tags = tables.model_versions, tables.model_files, tables.model_tags
    found = connection.execute(sa.select(versions).where(*conditions)).all()
    if not found:
        return []
    records: dict[tuple[str, int], list[FileRecord]] = defaultdict(list)
    for row in _children(connection, files, conditions):
        record = FileRecord(path=row.path, digest=row.digest or "", size=row.size)
        records[row.name, row.version].append(record)
    values: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for row in _children(connection, tags, conditions):
        values[row.name, row.version][row.key] = row.value
    return [
        _record(row, records[row.name, row.version], values[row.name, row.version]) for row in found
    ]


def _children(
    connection: Connection, table: sa.Table, conditions: Sequence[Condition]
) -> Sequence[Row[Any]]:
    versions = tables.model_versions
    same = sa.and_(table.c.name == versions.c.name, table.c.version == versions.c.version)
    return connection.execute(
        sa.select(table).select_from(table.join(versions, same)).where(*conditions)
    ).all()


def _record(row: Row[Any], files: list[FileRecord], tags: Mapping[str, str]) -> ModelVersion:
    known = msgspec.json.decode(row.document, type=Document)
    compiled = row.compiled_digest and Blob(digest=row.compiled_digest, size=row.compiled_size)
    return ModelVersion(
        name=row.name,
        version=row.version,
        digest=row.digest,
        files=tuple(sorted(each for each in files if each.digest)),
        folders=tuple(sorted(each.path for each in files if not each.digest)),
        compiled=compiled or None,
        tags=dict(sorted(tags.items())),
        description=row.description,
        metrics=msgspec.json.decode(row.metrics),
        created_at=row.created_at,
        created_by=row.created_by,
        source_commit=row.source_commit,
        source_dirty=row.source_dirty,
        **{name: getattr(known, name) for name in Document.__struct_fields__},
    )
