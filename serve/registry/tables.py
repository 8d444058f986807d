"""The one definition of the tables, the same in SQLite and PostgreSQL.

JSON is kept as text: PostgreSQL's own type refuses some strings and reorders keys.
"""

from __future__ import annotations

SCHEMA_VERSION = 3

WORKSPACE = "fieldpost_workspace"

ATTACHMENTS = (
    # What speaks of a package: signatures, SBOMs, provenance. `digest` is that of an OCI manifest
    # whose subject is the package.
    """
    CREATE TABLE IF NOT EXISTS fieldpost_referrers (
        digest VARCHAR(71) NOT NULL PRIMARY KEY,
        subject VARCHAR(71) NOT NULL REFERENCES fieldpost_packages (digest) ON DELETE CASCADE,
        added BIGINT NOT NULL,
        artifact_type TEXT NOT NULL,
        size BIGINT NOT NULL,
        created_at VARCHAR(32) NOT NULL,
        created_by TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS fieldpost_referrer_blobs (
        referrer VARCHAR(71) NOT NULL REFERENCES fieldpost_referrers (digest) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        digest VARCHAR(71) NOT NULL,
        size BIGINT NOT NULL,
        PRIMARY KEY (referrer, position)
    )
    """,
    # What holds for everyone who uses the workspace, each as JSON.
    """
    CREATE TABLE IF NOT EXISTS fieldpost_settings (
        name VARCHAR(128) NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    )
    """,
    """
    CREATE INDEX IF NOT EXISTS ix_fieldpost_referrers_subject
    ON fieldpost_referrers ("subject")
    """,
    """
    CREATE INDEX IF NOT EXISTS ix_fieldpost_referrer_blobs_digest
    ON fieldpost_referrer_blobs ("digest")
    """,
)
"""What version 2 added."""

ENDPOINTS = (
    # `generation` counts the changes of all that is wished for; `traffic`, `settings` and
    # `promotion` are JSON, the last one empty where nothing is being promoted.
    """
    CREATE TABLE IF NOT EXISTS fieldpost_endpoints (
        name VARCHAR(128) NOT NULL PRIMARY KEY,
        target TEXT NOT NULL,
        desired VARCHAR(16) NOT NULL,
        generation BIGINT NOT NULL,
        address TEXT NOT NULL,
        traffic TEXT NOT NULL,
        settings TEXT NOT NULL,
        promotion TEXT NOT NULL,
        created_at VARCHAR(32) NOT NULL,
        changed_at VARCHAR(32) NOT NULL,
        changed_by TEXT NOT NULL
    )
    """,
    # The deployments behind each endpoint, which cannot be deleted meanwhile.
    """
    CREATE TABLE IF NOT EXISTS fieldpost_endpoint_backends (
        endpoint VARCHAR(128) NOT NULL REFERENCES fieldpost_endpoints (name) ON DELETE CASCADE,
        deployment VARCHAR(128) NOT NULL REFERENCES fieldpost_deployments (name),
        PRIMARY KEY (endpoint, deployment)
    )
    """,
    """
    CREATE INDEX IF NOT EXISTS ix_fieldpost_endpoint_backends_deployment
    ON fieldpost_endpoint_backends ("deployment")
    """,
)
"""What version 3 added."""

STATEMENTS = (
    """
    CREATE TABLE IF NOT EXISTS fieldpost_workspace (
        id VARCHAR(32) NOT NULL PRIMARY KEY,
        schema_version INTEGER NOT NULL
    )
    """,
    # Rows are never deleted, so that no number is ever given twice.
    """
    CREATE TABLE IF NOT EXISTS fieldpost_counters (
        kind VARCHAR(16) NOT NULL,
        name VARCHAR(128) NOT NULL,
        last BIGINT NOT NULL,
        PRIMARY KEY (kind, name)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS fieldpost_model_versions (
        name VARCHAR(128) NOT NULL,
        version BIGINT NOT NULL,
        digest VARCHAR(71) NOT NULL,
        format TEXT NOT NULL,
        runtime TEXT NOT NULL,
        serves TEXT NOT NULL,
        compiled_digest VARCHAR(71),
        compiled_size BIGINT,
        document TEXT NOT NULL,
        description TEXT NOT NULL,
        metrics TEXT NOT NULL,
        created_at VARCHAR(32) NOT NULL,
        created_by TEXT NOT NULL,
        source_commit VARCHAR(64),
        source_dirty BOOLEAN,
        PRIMARY KEY (name, version)
    )
    """,
    # An empty folder is a path that ends in `/` and has no digest.
    """
    CREATE TABLE IF NOT EXISTS fieldpost_model_files (
        name VARCHAR(128) NOT NULL,
        version BIGINT NOT NULL,
        path TEXT NOT NULL,
        digest VARCHAR(71),
        size BIGINT NOT NULL,
        PRIMARY KEY (name, version, path),
        FOREIGN KEY (name, version)
            REFERENCES fieldpost_model_versions (name, version) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS fieldpost_model_tags (
        name VARCHAR(128) NOT NULL,
        version BIGINT NOT NULL,
        "key" VARCHAR(128) NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (name, version, "key"),
        FOREIGN KEY (name, version)
            REFERENCES fieldpost_model_versions (name, version) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS fieldpost_environments (
        name VARCHAR(128) NOT NULL,
        version BIGINT NOT NULL,
        hash VARCHAR(128) NOT NULL,
        lock_digest VARCHAR(71) NOT NULL,
        lock_size BIGINT NOT NULL,
        source_kind TEXT NOT NULL,
        platform TEXT NOT NULL,
        python TEXT NOT NULL,
        created_at VARCHAR(32) NOT NULL,
        created_by TEXT NOT NULL,
        PRIMARY KEY (name, version),
        UNIQUE (name, hash)
    )
    """,
    # `built` counts up with each build, the same package built again included: the newest has
    # the highest.
    """
    CREATE TABLE IF NOT EXISTS fieldpost_packages (
        digest VARCHAR(71) NOT NULL PRIMARY KEY,
        built BIGINT NOT NULL,
        model VARCHAR(128),
        model_version BIGINT,
        environment VARCHAR(128),
        platform TEXT NOT NULL,
        size BIGINT NOT NULL,
        created_at VARCHAR(32) NOT NULL,
        created_by TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS fieldpost_package_blobs (
        package VARCHAR(71) NOT NULL REFERENCES fieldpost_packages (digest) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        digest VARCHAR(71) NOT NULL,
        size BIGINT NOT NULL,
        PRIMARY KEY (package, position)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS fieldpost_deployments (
        name VARCHAR(128) NOT NULL PRIMARY KEY,
        target TEXT NOT NULL,
        desired VARCHAR(16) NOT NULL,
        active BIGINT,
        address TEXT NOT NULL,
        created_at VARCHAR(32) NOT NULL
    )
    """,
    # `owner` is the process that made it, as long as it is pending: see the module `owner`.
    """
    CREATE TABLE IF NOT EXISTS fieldpost_revisions (
        deployment VARCHAR(128) NOT NULL
            REFERENCES fieldpost_deployments (name) ON DELETE CASCADE,
        number BIGINT NOT NULL,
        package VARCHAR(71) NOT NULL REFERENCES fieldpost_packages (digest),
        target TEXT NOT NULL,
        settings TEXT NOT NULL,
        state VARCHAR(16) NOT NULL,
        created_at VARCHAR(32) NOT NULL,
        created_by TEXT NOT NULL,
        rollback_of BIGINT,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        owner TEXT NOT NULL,
        PRIMARY KEY (deployment, number)
    )
    """,
    *(
        f"CREATE INDEX IF NOT EXISTS ix_fieldpost_{table}_{column} "
        f'ON fieldpost_{table} ("{column}")'
        for table, column in (
            ("model_versions", "digest"),
            ("model_versions", "compiled_digest"),
            ("model_files", "digest"),
            ("model_tags", "key"),
            ("environments", "hash"),
            ("environments", "lock_digest"),
            ("packages", "built"),
            ("packages", "model"),
            ("package_blobs", "digest"),
            ("revisions", "package"),
        )
    ),
    *ATTACHMENTS,
    *ENDPOINTS,
)
"""What makes all tables and indexes, in this order."""
