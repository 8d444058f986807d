"""SLSA provenance v1: from what, by what and when a package was built, as an in-toto statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from scoring import __version__
from scoring import digest as digests
from scoring.errors import VerificationError
from scoring.packages.documents import canonical_json
from serve.provenance.artifacts import CYCLONEDX_TYPE, SPDX_TYPE
from serve.provenance.names import DECODE_ERRORS, hexadecimal, oci_purl
from serve.registry.provenance import GitSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from serve.packaging.plan import BuildPlan
    from serve.provenance.checks import Attached

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
SPDX_PREDICATE = "https://spdx.dev/Document"
CYCLONEDX_PREDICATE = "https://cyclonedx.org/bom"
SBOM_PREDICATES = {SPDX_TYPE: SPDX_PREDICATE, CYCLONEDX_TYPE: CYCLONEDX_PREDICATE}
BUILD_TYPE = "https://fieldpost.dev/build/package/v1"
BUILDER = "https://fieldpost.dev/builder/local"
BUILDER_VARIABLE = "FIELDPOST_BUILDER_ID"


class Run(msgspec.Struct, frozen=True):
    """A build as it was run.

    Attributes:
        started: UTC, ISO 8601, whole seconds, with `Z`.
        finished: The same.
        builder: A URI: whose word this is.
        model_commit: Git commit that the model was registered from; empty for none.
        script: The git repository of the scoring script; None where there is no script.
    """

    started: str
    finished: str
    builder: str = BUILDER
    model_commit: str = ""
    script: GitSource | None = None


class StatementSubject(msgspec.Struct, frozen=True):
    """What a statement is about."""

    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, rename="camel"):
    """An in-toto statement as far as it is read."""

    type: str = msgspec.field(name="_type")
    subject: tuple[StatementSubject, ...]
    predicate_type: str
    predicate: dict[str, Any]


def provenance(plan: BuildPlan, digest: str, run: Run) -> bytes:
    """The provenance statement of a package that has just been built.

    Args:
        plan: What it was built from.
        digest: The package's.
        run: How.
    """
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": _parameters(plan),
            "internalParameters": {"fieldpost": plan.fieldpost_version},
            "resolvedDependencies": [*_dependencies(plan), *_sources(run), *_base_of(plan)],
        },
        "runDetails": {
            "builder": {"id": run.builder, "version": {"fieldpost": __version__}},
            "metadata": {"startedOn": run.started, "finishedOn": run.finished},
        },
    }
    return statement(PREDICATE, predicate, {_name(plan): digest})


def statement(
    predicate_type: str, predicate: Mapping[str, object], subjects: Mapping[str, str]
) -> bytes:
    """An in-toto statement.

    Args:
        predicate_type: A URI.
        predicate: What is stated.
        subjects: Name to digest.
    """
    return canonical_json(
        {
            "_type": STATEMENT,
            "subject": [
                {"name": name, "digest": {"sha256": hexadecimal(digest)}}
                for name, digest in subjects.items()
            ],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def parse_statement(content: bytes) -> Statement:
    """Reads an in-toto statement.

    Raises:
        VerificationError: It is none.
    """
    try:
        found = msgspec.json.decode(content, type=Statement)
    except DECODE_ERRORS as error:
        raise VerificationError(f"A statement cannot be read: {error}.") from error
    if not found.type.startswith("https://in-toto.io/Statement/"):
        raise VerificationError(f"A statement is of the unknown type {found.type!r}.")
    return found


def statements_of(documents: Iterable[Attached], digest: str) -> dict[str, bytes]:
    """Predicate type to statement: what attached documents say, ready to be signed.

    Args:
        documents: SBOMs and unsigned statements.
        digest: The manifest that they speak of.
    """
    found = {}
    for document in documents:
        kind = SBOM_PREDICATES.get(document.artifact_type)
        if kind is None:
            found[parse_statement(document.content).predicate_type] = document.content
        else:
            content = msgspec.json.decode(document.content)
            found[kind] = statement(kind, content, {_titled(content): digest})
    return found


def _titled(document: dict[str, Any]) -> str:
    """The name that an SBOM gives to what it is about."""
    root = document.get("metadata", {}).get("component", {})
    named = ":".join(filter(None, (root.get("name", ""), root.get("version", ""))))
    return str(document.get("name") or named)


def is_about(found: Statement, digest: str) -> bool:
    """Whether the statement names the digest among its subjects."""
    return any(each.digest.get("sha256") == hexadecimal(digest) for each in found.subject)


def for_image(package_statement: bytes, image: str, base: tuple[str, str]) -> bytes:
    """The provenance of an image: that of its package, on a base.

    Args:
        package_statement: What `provenance` made.
        image: The image's digest.
        base: Name and digest of the base.
    """
    found = parse_statement(package_statement)
    subjects = {each.name: f"sha256:{each.digest.get('sha256', '')}" for each in found.subject}
    name = next(iter(subjects), "image")
    predicate = _on_base(found.predicate, [_base(*base)])
    return statement(PREDICATE, predicate, {f"{name} on {base[0]}": image} | subjects)


def for_package(image_statement: bytes, package: str) -> bytes | None:
    """The provenance of the package in an image, as `provenance` made it: `for_image` undone.

    Args:
        image_statement: What `for_image` made.
        package: The package's digest.

    Returns:
        The statement; None where the image's does not speak of that package.

    Raises:
        VerificationError: It is no statement.
    """
    found = parse_statement(image_statement)
    wanted = hexadecimal(package)
    names = [each.name for each in found.subject if each.digest.get("sha256") == wanted]
    if found.predicate_type != PREDICATE or not names:
        return None
    parameters = _object(_object(found.predicate.get("buildDefinition")).get("externalParameters"))
    name, _, digest = str(parameters.get("base", "")).rpartition("@")
    predicate = _on_base(found.predicate, [_base(name, digest)] if name else [])
    return statement(PREDICATE, predicate, dict.fromkeys(names, package))


def _on_base(predicate: dict[str, Any], base: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A predicate with another base, or with none, behind all else that went in."""
    definition = _object(predicate.get("buildDefinition"))
    given = definition.get("resolvedDependencies")
    others = given if isinstance(given, list) else []
    others = [each for each in others if _object(each).get("name") != "base"]
    definition["resolvedDependencies"] = [*others, *base]
    return predicate | {"buildDefinition": definition}


def _object(value: object) -> dict[str, Any]:
    """A copy of a JSON object; empty for anything else, as others may have written it."""
    return dict(value) if isinstance(value, dict) else {}


def _name(plan: BuildPlan) -> str:
    version = f":{plan.bundle.model_version}" if plan.bundle.model_version else ""
    return plan.bundle.name + version


def _parameters(plan: BuildPlan) -> dict[str, Any]:
    values = {
        "model": _name(plan) if plan.model_digest else "",
        "script": plan.bundle.script.entry if plan.bundle.script else "",
        "environment": plan.lock.hash,
        "platform": plan.lock.target.platform,
        "python": plan.lock.target.python,
        "base": f"{plan.base.name}@{plan.base.digest}" if plan.base else "",
    }
    return {key: value for key, value in values.items() if value}


def _dependencies(plan: BuildPlan) -> Iterable[dict[str, Any]]:
    from serve.packaging.contents import LOCK_FILE  # noqa: PLC0415 - a build has it in memory

    # It has the hash of every wheel, and is in the environment's layer under this name.
    yield _named(LOCK_FILE, digests.of_bytes(plan.lock.text.encode()))
    if plan.model_digest:
        yield _named("model", plan.model_digest)
    for file in plan.model_files:
        yield _named(f"model/{file.path}", file.digest)


def _base_of(plan: BuildPlan) -> Iterable[dict[str, Any]]:
    """The last of all: an image's takes its place."""
    if plan.base:
        yield _base(plan.base.name, plan.base.digest)


def _sources(run: Run) -> Iterable[dict[str, Any]]:
    if run.model_commit:
        yield {"name": "model source", "digest": {"gitCommit": run.model_commit}}
    if run.script is not None and run.script.commit:
        source: dict[str, Any] = {"name": "script source"}
        source["digest"] = {"gitCommit": run.script.commit}
        if run.script.dirty:
            source["annotations"] = {"dirty": True}
        yield source


def _named(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": hexadecimal(digest)}}


def _base(name: str, digest: str) -> dict[str, Any]:
    if not digest:
        return {"name": "base", "uri": name}
    return _named("base", digest) | {"uri": oci_purl(name, digest)}
