"""What a build knows is recorded when it is built: nobody could tell it later.

A build imports this, so that it stays light.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

from scoring.errors import NotFoundError
from scoring.packages.documents import MANIFEST_TYPE
from serve.provenance import artifacts, facts, slsa
from serve.provenance.artifacts import Artifact, Subject
from serve.registry.provenance import git_source

if TYPE_CHECKING:
    from pathlib import Path

    from serve.packaging.plan import BuildPlan
    from serve.registry import Registry
    from serve.registry.records import Referrer


def now() -> dt.datetime:
    """The time, as `record_build` takes it."""
    return dt.datetime.now(dt.UTC)


def _time(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def record_build(
    registry: Registry, plan: BuildPlan, digest: str, started: dt.datetime, script: Path | None
) -> None:
    """Attaches the provenance of a build, unless the package has one from its first build.

    Args:
        registry: Where the package is.
        plan: What it was built from.
        digest: The package's.
        started: When the build began; it ends now.
        script: The scoring script, where there is one.

    Raises:
        StorageFullError: No space is left.
    """
    if registry.referrers.list(digest, artifacts.PROVENANCE_TYPE):
        return
    run = slsa.Run(
        started=_time(started),
        finished=_time(now()),
        builder=os.environ.get(slsa.BUILDER_VARIABLE) or slsa.BUILDER,
        model_commit=_model_commit(registry, plan),
        script=git_source(script) if script else None,
    )
    subject = Subject(digest, registry.blobs.path(digest).stat().st_size, MANIFEST_TYPE)
    keep_provenance(registry, slsa.provenance(plan, digest, run), subject)


def keep_model(registry: Registry, plan: BuildPlan, layer: str) -> None:
    """Keeps what is in the model layer of a build, so that nobody has to read it for that.

    Args:
        registry: Where the package is.
        plan: What it was built from.
        layer: The layer's digest.

    Raises:
        StorageFullError: No space is left.
    """
    cache = facts.folder(registry.location.blobs)
    if facts.find(cache, layer, facts.ModelFacts) is None:
        files = (facts.ModelFile(each.path, each.digest, each.size) for each in plan.model_files)
        facts.keep(cache, layer, facts.ModelFacts(plan.bundle, tuple(sorted(files))))


def keep_environment(registry: Registry, plan: BuildPlan, layer: str, site: Path) -> None:
    """Keeps what was installed into an environment layer; see `keep_model`.

    Args:
        registry: Where the package is.
        plan: What is built.
        layer: The layer's digest.
        site: The folder that was installed into.
    """
    from serve.provenance.licences import read_metadata  # noqa: PLC0415 - for a new environment

    found = (read_metadata(each.read_bytes()) for each in site.glob("*.dist-info/METADATA"))
    kept = facts.EnvironmentFacts(plan.lock.text, tuple(sorted(found)))
    facts.keep(facts.folder(registry.location.blobs), layer, kept)


def _model_commit(registry: Registry, plan: BuildPlan) -> str:
    """The git commit that the model was registered from; empty where there is none."""
    if not plan.model_digest:
        return ""
    try:
        found = registry.models.get(f"{plan.bundle.name}:{plan.bundle.model_version}")
    except NotFoundError:  # deleted meanwhile
        return ""
    return found.source_commit or ""


def attach(registry: Registry, artifact: Artifact) -> Referrer:
    """Keeps an artifact beside its package."""
    return registry.referrers.attach(
        artifact.manifest,
        artifact.blobs,
        subject=artifact.subject.digest,
        artifact_type=artifact.artifact_type,
    )


def keep_provenance(registry: Registry, statement: bytes, subject: Subject) -> None:
    """Keeps the provenance statement of a package beside it."""
    title = artifacts.PROVENANCE_TITLE
    attach(registry, artifacts.statement(statement, slsa.PREDICATE, subject, title=title))


def find_provenance(registry: Registry, digest: str) -> bytes | None:
    """The provenance statement of a package; None for none."""
    for referrer in registry.referrers.list(digest, artifacts.PROVENANCE_TYPE):
        return registry.blobs.read_bytes(referrer.blobs[1].digest)
    return None


def provenance_of(registry: Registry, digest: str) -> bytes:
    """The provenance statement of a package.

    Raises:
        NotFoundError: It has none: it was built by an earlier release, or pulled without it.
    """
    found = find_provenance(registry, digest)
    if found is None:
        raise NotFoundError(
            f"The package {digest} has no provenance.",
            hint="Build it again with this release, or pull it from where its provenance is.",
        )
    return found
