-- A registry of schema version 1, as the first release wrote it: to be opened by every later one.
BEGIN TRANSACTION;
CREATE TABLE fieldpost_counters (
    kind VARCHAR(16) NOT NULL,
    name VARCHAR(128) NOT NULL,
    last BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);
INSERT INTO "fieldpost_counters" VALUES('model','iris',1);
INSERT INTO "fieldpost_counters" VALUES('environment','e',1);
INSERT INTO "fieldpost_counters" VALUES('package','',1);
INSERT INTO "fieldpost_counters" VALUES('revision','web',1);
CREATE TABLE fieldpost_deployments (
    name VARCHAR(128) NOT NULL,
    target TEXT NOT NULL,
    desired VARCHAR(16) NOT NULL,
    active BIGINT,
    address TEXT NOT NULL,
    created_at VARCHAR(32) NOT NULL,
    PRIMARY KEY (name)
);
INSERT INTO "fieldpost_deployments" VALUES('web','local','running',1,'','2026-11-21T10:52:01.474954+00:00');
CREATE TABLE fieldpost_environments (
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
);
INSERT INTO "fieldpost_environments" VALUES('e',1,'h1','sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',2,'requirements','linux/amd64','3.11','2026-11-21T10:52:01.455931+00:00','ada');
CREATE TABLE fieldpost_model_files (
    name VARCHAR(128) NOT NULL,
    version BIGINT NOT NULL,
    path TEXT NOT NULL,
    digest VARCHAR(71),
    size BIGINT NOT NULL,
    PRIMARY KEY (name, version, path),
    FOREIGN KEY(name, version) REFERENCES fieldpost_model_versions (name, version) ON DELETE CASCADE
);
INSERT INTO "fieldpost_model_files" VALUES('iris',1,'iris.onnx','sha256:7a066d4a37537076a03f11c4ee5e330e26054c6a9f2ca17f32a505276724505d',518);
CREATE TABLE fieldpost_model_tags (
    name VARCHAR(128) NOT NULL,
    version BIGINT NOT NULL,
    "key" VARCHAR(128) NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (name, version, "key"),
    FOREIGN KEY(name, version) REFERENCES fieldpost_model_versions (name, version) ON DELETE CASCADE
);
INSERT INTO "fieldpost_model_tags" VALUES('iris',1,'k','v');
INSERT INTO "fieldpost_model_tags" VALUES('iris',1,'k2','w');
CREATE TABLE fieldpost_model_versions (
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
);
INSERT INTO "fieldpost_model_versions" VALUES('iris',1,'sha256:1a64b4e1afd49f061dc42026095fc8728d04d1bb2d78b2c63d318a4f2b328e45','onnx','onnx','','sha256:7a066d4a37537076a03f11c4ee5e330e26054c6a9f2ca17f32a505276724505d',518,'{"format":"onnx","primary":"","runtime":"onnx"}','d','{"a":1.5}','2026-11-21T10:52:01.438244+00:00','ada','cccccccccccccccccccccccccccccccccccccccc',1);
CREATE TABLE fieldpost_package_blobs (
    package VARCHAR(71) NOT NULL,
    position INTEGER NOT NULL,
    digest VARCHAR(71) NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (package, position),
    FOREIGN KEY(package) REFERENCES fieldpost_packages (digest) ON DELETE CASCADE
);
INSERT INTO "fieldpost_package_blobs" VALUES('sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',0,'sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85',5);
CREATE TABLE fieldpost_packages (
    digest VARCHAR(71) NOT NULL,
    built BIGINT NOT NULL,
    model VARCHAR(128),
    model_version BIGINT,
    environment VARCHAR(128),
    platform TEXT NOT NULL,
    size BIGINT NOT NULL,
    created_at VARCHAR(32) NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (digest)
);
INSERT INTO "fieldpost_packages" VALUES('sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',1,'iris',1,'h1','linux/amd64',7,'2026-11-21T10:52:01.463666+00:00','ada');
CREATE TABLE fieldpost_revisions (
    deployment VARCHAR(128) NOT NULL,
    number BIGINT NOT NULL,
    package VARCHAR(71) NOT NULL,
    target TEXT NOT NULL,
    settings TEXT NOT NULL,
    state VARCHAR(16) NOT NULL,
    created_at VARCHAR(32) NOT NULL,
    created_by TEXT NOT NULL,
    rollback_of BIGINT,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (deployment, number),
    FOREIGN KEY(deployment) REFERENCES fieldpost_deployments (name) ON DELETE CASCADE,
    FOREIGN KEY(package) REFERENCES fieldpost_packages (digest)
);
INSERT INTO "fieldpost_revisions" VALUES('web',1,'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a','local','{"w":"2"}','active','2026-11-21T10:52:01.476638+00:00','ada',NULL,'','','{}');
CREATE TABLE fieldpost_workspace (
    id VARCHAR(32) NOT NULL,
    schema_version INTEGER NOT NULL,
    PRIMARY KEY (id)
);
INSERT INTO "fieldpost_workspace" VALUES('d7fa14980ca24bfeb33043bf0526464a',1);
CREATE INDEX ix_fieldpost_model_versions_compiled_digest ON fieldpost_model_versions (compiled_digest);
CREATE INDEX ix_fieldpost_model_versions_digest ON fieldpost_model_versions (digest);
CREATE INDEX ix_fieldpost_environments_lock_digest ON fieldpost_environments (lock_digest);
CREATE INDEX ix_fieldpost_environments_hash ON fieldpost_environments (hash);
CREATE INDEX ix_fieldpost_packages_model ON fieldpost_packages (model);
CREATE INDEX ix_fieldpost_packages_built ON fieldpost_packages (built);
CREATE INDEX ix_fieldpost_model_files_digest ON fieldpost_model_files (digest);
CREATE INDEX ix_fieldpost_model_tags_key ON fieldpost_model_tags ("key");
CREATE INDEX ix_fieldpost_package_blobs_digest ON fieldpost_package_blobs (digest);
CREATE INDEX ix_fieldpost_revisions_package ON fieldpost_revisions (package);
COMMIT;
