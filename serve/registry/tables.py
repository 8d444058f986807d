"""The one definition of the tables, the same in SQLite and PostgreSQL.

JSON is kept as text: PostgreSQL's own type refuses some strings and reorders keys.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1

metadata = MetaData()

_CASCADE = "CASCADE"


def _digest(name: str = "digest", *, nullable: bool = False, index: bool = True) -> Column[str]:
    return Column(name, String(71), nullable=nullable, index=index)


def _made() -> tuple[Column[str], Column[str]]:
    return (
        Column("created_at", String(32), nullable=False),
        Column("created_by", Text, nullable=False),
    )


def _size() -> Column[int]:
    return Column("size", BigInteger, nullable=False)


workspace = Table(
    "fieldpost_workspace",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("schema_version", Integer, nullable=False),
)

counters = Table(
    "fieldpost_counters",
    metadata,
    # Rows are never deleted, so that no number is ever given twice.
    Column("kind", String(16), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("last", BigInteger, nullable=False),
)

model_versions = Table(
    "fieldpost_model_versions",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    _digest(),
    Column("format", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("serves", Text, nullable=False),
    _digest("compiled_digest", nullable=True),
    Column("compiled_size", BigInteger),
    Column("document", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("metrics", Text, nullable=False),
    *_made(),
    Column("source_commit", String(64)),
    Column("source_dirty", Boolean),
)

_model = ["name", "version"]
_model_columns = [model_versions.c.name, model_versions.c.version]

model_files = Table(
    "fieldpost_model_files",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("path", Text, primary_key=True),
    # An empty folder is a path that ends in `/` and has no digest.
    _digest(nullable=True),
    _size(),
    ForeignKeyConstraint(_model, _model_columns, ondelete=_CASCADE),
)

model_tags = Table(
    "fieldpost_model_tags",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(128), primary_key=True, index=True),
    Column("value", Text, nullable=False),
    ForeignKeyConstraint(_model, _model_columns, ondelete=_CASCADE),
)

environments = Table(
    "fieldpost_environments",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", String(128), nullable=False, index=True),
    _digest("lock_digest"),
    Column("lock_size", BigInteger, nullable=False),
    Column("source_kind", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("python", Text, nullable=False),
    *_made(),
    UniqueConstraint("name", "hash"),
)

packages = Table(
    "fieldpost_packages",
    metadata,
    Column("digest", String(71), primary_key=True),
    # Counts up with each build, the same package built again included: the newest has the highest.
    Column("built", BigInteger, nullable=False, index=True),
    Column("model", String(128), index=True),
    Column("model_version", BigInteger),
    Column("environment", String(128)),
    Column("platform", Text, nullable=False),
    _size(),
    *_made(),
)

package_blobs = Table(
    "fieldpost_package_blobs",
    metadata,
    Column("package", ForeignKey(packages.c.digest, ondelete=_CASCADE), primary_key=True),
    Column("position", Integer, primary_key=True),
    _digest(),
    _size(),
)

deployments = Table(
    "fieldpost_deployments",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("target", Text, nullable=False),
    Column("desired", String(16), nullable=False),
    Column("active", BigInteger),
    Column("address", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)

revisions = Table(
    "fieldpost_revisions",
    metadata,
    Column("deployment", ForeignKey(deployments.c.name, ondelete=_CASCADE), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("package", ForeignKey(packages.c.digest), nullable=False, index=True),
    Column("target", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("state", String(16), nullable=False),
    *_made(),
    Column("rollback_of", BigInteger),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    # The process that made it, as long as it is pending: see `owner`.
    Column("owner", Text, nullable=False),
)
