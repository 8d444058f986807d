"""What the registry answers with: frozen values that need no database to be used."""

from typing import Any, Literal

import msgspec

from scoring.compilation import Compilation
from scoring.schema import ModelSchema

RevisionState = Literal["pending", "active", "superseded", "failed", "abandoned"]
"""`abandoned`: the command that made it went away before it became active."""

Desired = Literal["running", "stopped"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records."""

    def to_dict(self) -> dict[str, Any]:
        """The record as it appears in `--json` output."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


class Blob(Record, frozen=True, order=True):
    """Bytes in the blob store.

    Attributes:
        digest: `sha256:` and 64 hexadecimal digits.
        size: In bytes.
    """

    digest: str
    size: int


class FileRecord(Record, frozen=True, order=True):
    """One file of a model version.

    Attributes:
        path: Relative, with `/`.
        digest: Of its bytes.
        size: In bytes.
    """

    path: str
    digest: str
    size: int


class ModelVersion(Record, frozen=True):
    """A registered model version.

    Attributes:
        name: The model's name.
        version: Counted up by the registry from 1; a deleted one is never given again.
        digest: Of all files together: equal for equal files, whoever registered them.
        format: As `scoring.formats` names it.
        runtime: What serves it.
        serves: `compiled` or `original`.
        primary: The model file among `files`; empty where there is none.
        files: The registered files, by path.
        folders: Folders without files, which some formats need.
        compiled: The compiled form, where there is one.
        schema: What it takes and answers; None for none.
        compilation: How the compilation ended; None where none was tried.
        made_with: Package to version, as the file tells.
        requirements: What serving it needs, pinned.
        native_requirements: What its own framework needs, pinned.
        pickle_trusted: The user trusted the pickle when registering.
        trusted_types: The skops types that the user trusted.
        tags: Key to value.
        description: Free text.
        metrics: Free JSON object: accuracy and the like.
        created_at: UTC, ISO 8601.
        created_by: The user.
        source_commit: Git commit of the folder the files came from; None outside of a repository.
        source_dirty: Whether that folder had uncommitted changes; None outside of a repository.
    """

    name: str
    version: int
    digest: str
    format: str
    runtime: str
    serves: str
    primary: str
    files: tuple[FileRecord, ...]
    folders: tuple[str, ...]
    compiled: Blob | None
    schema: ModelSchema | None
    compilation: Compilation | None
    made_with: dict[str, str]
    requirements: tuple[str, ...]
    native_requirements: tuple[str, ...]
    pickle_trusted: bool
    trusted_types: tuple[str, ...]
    tags: dict[str, str]
    description: str
    metrics: dict[str, Any]
    created_at: str
    created_by: str
    source_commit: str | None
    source_dirty: bool | None

    @property
    def ref(self) -> str:
        """`NAME:VERSION`."""
        return f"{self.name}:{self.version}"

    @property
    def size(self) -> int:
        """Of all files together, in bytes."""
        return sum(file.size for file in self.files)


class Change(Record, frozen=True):
    """A value that two versions do not share; None where one of them lacks it."""

    before: Any
    after: Any

    def to_text(self) -> str:
        """For a terminal: `before -> after`, `none` where one is absent."""
        return " -> ".join(
            "none" if value is None else msgspec.json.encode(value).decode()
            for value in (self.before, self.after)
        )


class ModelDiff(Record, frozen=True):
    """What differs between two model versions.

    Attributes:
        before: `NAME:VERSION`.
        after: `NAME:VERSION`.
        identical: Nothing below differs.
        files_added: Only in the second.
        files_removed: Only in the first.
        files_changed: Path to both `Blob`s.
        fields: Format, runtime and the like: field to both values.
        schema: Path inside the schema (`inputs.sepal.dtype`) to both values.
        tags: Key to both values.
        metrics: Key to both values.
        requirements: Package to both pins.
    """

    before: str
    after: str
    identical: bool
    files_added: tuple[FileRecord, ...]
    files_removed: tuple[FileRecord, ...]
    files_changed: dict[str, Change]
    fields: dict[str, Change]
    schema: dict[str, Change]
    tags: dict[str, Change]
    metrics: dict[str, Change]
    requirements: dict[str, Change]

    def to_text(self) -> str:
        """For a terminal, one difference a line."""
        lines = [f"+ {file.path}  {file.digest}" for file in self.files_added]
        lines += [f"- {file.path}  {file.digest}" for file in self.files_removed]
        lines += [
            f"~ {path}  {change.before.digest} -> {change.after.digest}"
            for path, change in self.files_changed.items()
        ]
        for label in ("fields", "schema", "tags", "metrics", "requirements"):
            changes: dict[str, Change] = getattr(self, label)
            prefix = "" if label == "fields" else f"{label}."
            lines += [f"~ {prefix}{key}  {change.to_text()}" for key, change in changes.items()]
        headline = f"{self.before} and {self.after}"
        return "\n".join([headline, *lines]) if lines else f"{headline} are identical."


class Freed(Record, frozen=True):
    """What a deletion or a garbage collection removed.

    Attributes:
        blobs: How many blobs, and leftovers of killed writers.
        size: Their bytes.
        packages: Digests of the packages that went with a model version.
    """

    blobs: int = 0
    size: int = 0
    packages: tuple[str, ...] = ()


class Environment(Record, frozen=True):
    """A locked set of dependencies.

    Attributes:
        name: Its name.
        version: Counted up; the same hash under one name is the same version.
        hash: The cache key of its layer.
        lock: The lock document, a blob.
        source_kind: `requirements`, `pyproject`, `uv.lock` or `conda`.
        platform: The platform that it was locked for.
        python: The Python version that it was locked for.
        created_at: UTC, ISO 8601.
        created_by: The user.
    """

    name: str
    version: int
    hash: str
    lock: Blob
    source_kind: str
    platform: str
    python: str
    created_at: str
    created_by: str

    @property
    def ref(self) -> str:
        """`NAME:VERSION`."""
        return f"{self.name}:{self.version}"


class Package(Record, frozen=True):
    """A built package: an OCI image manifest and what it points at.

    Attributes:
        digest: Of the manifest, which names the package.
        model: The model's name; None for a script without a model.
        model_version: None for a script without a model.
        environment: Hash of the environment; None for none.
        platform: `linux/amd64` and the like.
        blobs: Config and layers, in the manifest's order.
        size: Of manifest, config and layers, in bytes.
        created_at: When it was first built: UTC, ISO 8601.
        created_by: The user.
    """

    digest: str
    model: str | None
    model_version: int | None
    environment: str | None
    platform: str
    blobs: tuple[Blob, ...]
    size: int
    created_at: str
    created_by: str

    @property
    def model_ref(self) -> str | None:
        """`NAME:VERSION` of the model; None for a script without one."""
        return None if self.model_version is None else f"{self.model}:{self.model_version}"


class Referrer(Record, frozen=True):
    """What is attached to a package: an OCI manifest whose subject the package is.

    Attributes:
        digest: Of the manifest.
        subject: The package's digest.
        artifact_type: What it is: `application/spdx+json` and the like.
        blobs: Config and layers, in the manifest's order.
        size: Of manifest, config and layers, in bytes.
        created_at: When it was attached here: UTC, ISO 8601.
        created_by: The user.
    """

    digest: str
    subject: str
    artifact_type: str
    blobs: tuple[Blob, ...]
    size: int
    created_at: str
    created_by: str


class Revision(Record, frozen=True):
    """One attempt to run a package under a deployment's name.

    Attributes:
        deployment: The deployment's name.
        number: Counted up from 1.
        package: The package's digest.
        target: Where it runs.
        settings: What the target was told.
        state: See `RevisionState`.
        created_at: UTC, ISO 8601.
        created_by: The user.
        rollback_of: The revision whose package it brings back; None for a new deployment.
        reason: Why it failed, in a sentence; empty otherwise.
        detail: The script's traceback or the like; empty otherwise.
    """

    deployment: str
    number: int
    package: str
    target: str
    settings: dict[str, str]
    state: RevisionState
    created_at: str
    created_by: str
    rollback_of: int | None = None
    reason: str = ""
    detail: str = ""


class Deployment(Record, frozen=True):
    """A named, running package on a target.

    Attributes:
        name: Its name.
        target: Where it runs.
        desired: What the user wants; whether it is so is for the target to say.
        active: Number of the revision that answers; None before the first.
        address: Its URL; empty until the target says.
        settings: Of the active revision, else of the newest.
        revisions: All of them, oldest first.
        created_at: UTC, ISO 8601.
    """

    name: str
    target: str
    desired: Desired
    active: int | None
    address: str
    settings: dict[str, str]
    revisions: tuple[Revision, ...]
    created_at: str

    @property
    def active_revision(self) -> Revision | None:
        """The revision that answers; None before the first."""
        return next((each for each in self.revisions if each.number == self.active), None)

    def revision(self, number: int) -> Revision | None:
        """The revision of that number; None for none."""
        return next((each for each in self.revisions if each.number == number), None)


class Endpoint(Record, frozen=True):
    """A stable URL in front of deployments, as it is wished for.

    Attributes:
        name: Its name.
        target: What answers at the URL: `front` (a process of ours) or `kubernetes`.
        desired: What the user wants.
        generation: Counts its changes from 1.
        address: Its URL; empty until something answers there.
        traffic: How requests are spread (`serve.endpoints.traffic.Traffic` as plain values).
        settings: What the front was told.
        promotion: The promotion under way or the last one; None for none.
        created_at: UTC, ISO 8601.
        changed_at: UTC, ISO 8601.
        changed_by: The user.
    """

    name: str
    target: str
    desired: Desired
    generation: int
    address: str
    traffic: dict[str, Any]
    settings: dict[str, str]
    promotion: dict[str, Any] | None
    created_at: str
    changed_at: str
    changed_by: str
