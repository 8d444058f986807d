"""Documents and signatures of the packages of a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scoring.errors import UsageError
from scoring.packages.documents import INDEX_TYPE, MANIFEST_TYPE
from scoring.packages.platformindex import package_manifests
from scoring.packages.reading import verify_package
from serve.provenance import artifacts, checks, facts, signing
from serve.provenance.about import About
from serve.provenance.artifacts import Artifact, Subject
from serve.provenance.documents import Documents, describe
from serve.provenance.inventory import BaseFact, take_inventory
from serve.provenance.recording import attach, find_provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.provenance.keys import PrivateKey, PublicKey
    from serve.registry import Registry
    from serve.registry.records import Referrer


def documents(
    registry: Registry, digest: str, *, image: Subject | None = None, base: BaseFact | None = None
) -> Documents:
    """What can be said about a package, or about an image of it.

    Args:
        registry: Where the package is.
        digest: The package's.
        image: The image's manifest; None for the package itself.
        base: What the image stands on.

    Raises:
        UsageError: It is a package of several platforms, which have each their own.
        NotFoundError: A blob is not in the store.
        DigestMismatchError: A blob is damaged.
    """
    own = subject(registry, digest)
    if own.media_type == INDEX_TYPE:
        raise UsageError(
            f"{digest} is a package of several platforms, each with its own documents.",
            hint="Name the package of one platform: 'fieldpost package show' lists them.",
        )
    cache = facts.folder(registry.location.blobs)
    inventory = take_inventory(digest, registry.blobs, cache)
    if base is not None:
        inventory = msgspec.structs.replace(inventory, base=base)
    return describe(About(image or own, inventory), find_provenance(registry, digest))


def sign(registry: Registry, digest: str, key: PrivateKey, *, reference: str) -> tuple[str, ...]:
    """Signs a package, and the statements of what is in it and where it comes from.

    Each package of one for several platforms is signed, then the whole.

    Args:
        registry: Where it is, and where the signatures are kept.
        digest: The package's.
        key: What signs.
        reference: What the signature calls it.

    Returns:
        The digests of what was signed.

    Raises:
        DigestMismatchError: The package is damaged: what is not whole is not vouched for.
    """
    members = _members(registry, digest)
    for one in members:
        statements = {}
        if package_manifests(one, registry.blobs) is None:
            verify_package(one, registry.blobs)
            statements = documents(registry, one).statements
        own = subject(registry, one)
        if not signing.is_signed(evidence(registry, one), own, statements, key, reference):
            for artifact in signing.sign(own, statements, key, reference):
                attach(registry, artifact)
    return tuple(members)


def verify(
    registry: Registry, digest: str, keys: Sequence[PublicKey] = (), *, whole: bool = True
) -> checks.Verdict:
    """Checks a package: its bytes, its signatures, and the documents beside it.

    Args:
        registry: Where it is.
        digest: The package's.
        keys: Those that are trusted; none to check bytes and documents only.
        whole: Read every layer; else only what is attached is read.

    Raises:
        UnsignedError: A key was given, and there is no signature.
        VerificationError: A signature or a document does not match.
        DigestMismatchError: A blob is damaged.
        NotFoundError: A blob is missing.
    """
    verdict = checks.check(evidence(registry, digest), keys)
    for one in _members(registry, digest):
        if whole and package_manifests(one, registry.blobs) is None:
            verify_package(one, registry.blobs)
        if one != digest:  # the index names it by its digest, and is signed
            checks.check(evidence(registry, one), ())
    return verdict


def subject(registry: Registry, digest: str) -> Subject:
    """A stored package as what artifacts speak of."""
    index = package_manifests(digest, registry.blobs)
    size = registry.blobs.path(digest).stat().st_size
    return Subject(digest, size, MANIFEST_TYPE if index is None else INDEX_TYPE)


def _members(registry: Registry, digest: str) -> list[str]:
    """A package, or all packages of an index and then the index itself."""
    index = package_manifests(digest, registry.blobs)
    return [*(each.digest for each in index.manifests), digest] if index else [digest]


def evidence(registry: Registry, digest: str) -> checks.Evidence:
    """All that is attached to a package.

    Raises:
        DigestMismatchError: It is damaged.
        VerificationError: It is not what it should be.
    """
    found = checks.Found(digest)
    for referrer in registry.referrers.list(digest):
        manifest = artifacts.parse(registry.referrers.manifest(referrer))
        found.add(manifest, lambda part: registry.blobs.read_bytes(part.digest))
    return found.evidence()


def kept_artifacts(
    registry: Registry, digest: str, chosen: Sequence[Referrer] | None = None
) -> list[Artifact]:
    """What is attached to a package, to be sent elsewhere.

    Args:
        registry: Where the package is.
        digest: The package's.
        chosen: Only these; all by default.
    """
    own = subject(registry, digest)
    return [
        Artifact(
            manifest=registry.referrers.manifest(each),
            blobs=tuple(registry.blobs.read_bytes(blob.digest) for blob in each.blobs),
            subject=own,
            artifact_type=each.artifact_type,
        )
        for each in (registry.referrers.list(digest) if chosen is None else chosen)
    ]
