"""Documents and signatures of images in a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from scoring import digest as digests
from scoring.errors import NotFoundError, VerificationError
from scoring.packages.documents import MANIFEST_TYPE, PACKAGE
from serve.distribution.attaching import Batch
from serve.distribution.client import PULL, PUSH, RegistryClient
from serve.distribution.content import Descriptor
from serve.distribution.documents import INDEXES
from serve.distribution.progress import Progress, side_by_side
from serve.distribution.pushing import push
from serve.distribution.referrers import list_referrers
from serve.provenance import artifacts, checks, dsse, local, signing, slsa
from serve.provenance.artifacts import Subject, TagImage
from serve.provenance.chain import require_package
from serve.provenance.inventory import BaseFact
from serve.provenance.reading import (
    TagDocuments,
    read_part,
    restored_package,
    told_of_packages,
)
from serve.provenance.recording import attach as attach_locally
from serve.provenance.recording import find_provenance, keep_provenance

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from serve.distribution.documents import Document
    from serve.distribution.options import Options
    from serve.distribution.reference import Reference
    from serve.provenance.artifacts import Artifact, ArtifactManifest, Part, Suffix
    from serve.provenance.keys import PrivateKey, PublicKey
    from serve.registry import Registry

_BASE = "org.opencontainers.image.base."


class Remote:
    """One repository of a registry, with what is attached to its images; ends with its block.

    Args:
        reference: The repository, with the tag or digest that is meant.
        options: How registries are reached.
        writing: Whether anything is to be signed or attached.
    """

    def __init__(self, reference: Reference, options: Options, *, writing: bool = False) -> None:
        self._reference = reference
        self._options = options
        self._client = RegistryClient(
            reference,
            actions=PUSH if writing else PULL,
            hosts=options.hosts,
            logins=options.logins,
            limits=options.limits,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def verify(self, keys: Sequence[PublicKey] = (), *, whole: bool = True) -> checks.Verdict:
        """Checks the image: signatures, manifests, the package in it, every layer, documents.

        Args:
            keys: Those that are trusted; none to check bytes and documents only.
            whole: Download every layer to hash it, nothing of which is kept.

        Raises:
            NotFoundError: There is no such image, or a part of it is gone.
            UnsignedError: A key was given, and there is no signature.
            VerificationError: Something does not match.
            DigestMismatchError: The registry's bytes are others than their digest names.
        """
        root = self._client.manifest(self._reference.target)
        verdict = checks.check(self._evidence(root), keys)
        seen: set[str] = set()
        for document in self._images(root):
            if document.digest != root.digest:  # named by a digest in what is signed
                checks.check(self._evidence(document), ())
            self._check_package(document)
            for blob in document.blobs:
                if whole and blob.digest not in seen:
                    seen.add(blob.digest)
                    for _ in self._client.blob(blob):
                        pass
        return verdict

    def sign(self, key: PrivateKey) -> tuple[str, ...]:
        """Signs the image, each image of an index, and the packages in them.

        Args:
            key: What signs.

        Returns:
            The digests of what was signed.
        """
        root = self._client.manifest(self._reference.target)
        documents = [*self._with_packages(root)]
        told = dict(told_of_packages(self._client, self._images(root)))
        for document in documents:
            self._sign_one(document, key, told.get(document.digest))
        return tuple(each.digest for each in documents)

    def _sign_one(self, document: Document, key: PrivateKey, provenance: bytes | None) -> None:
        subject = _subject(document)
        found = self._evidence(document)
        checks.check(found, ())
        told = {slsa.PREDICATE: provenance} if provenance is not None else {}
        statements = told | slsa.statements_of(found.documents, subject.digest)
        name = self._client.reference.name
        if signing.is_signed(found, subject, statements, key, name):
            return
        made = signing.sign(subject, statements, key, name)
        self._put(made, subject.digest)

    def attach(self, registry: Registry) -> int:
        """Attaches SBOMs and provenance to the image, and to its package what is attached here.

        Args:
            registry: Where the packages are.

        Returns:
            How many bytes were sent.
        """
        root = self._client.manifest(self._reference.target)
        sent, told = 0, set()
        for document in self._images(root):
            package = document.annotations.get(PACKAGE, document.digest)
            if package != document.digest:
                sent += self._attach_documents(registry, document, package)
                told.add(package)
        for document in self._with_packages(root):
            if registry.blobs.has(document.digest):
                sent += self._attach_kept(registry, document, told)
        return sent

    def _attach_documents(self, registry: Registry, image: Document, package: str) -> int:
        kinds = {each.artifact_type for each in list_referrers(self._client, image.digest)}
        if {artifacts.SPDX_TYPE, artifacts.CYCLONEDX_TYPE} <= kinds:
            return 0
        told = image.annotations
        base = BaseFact(told.get(f"{_BASE}name", ""), told.get(f"{_BASE}digest", ""))
        found = local.documents(registry, package, image=_subject(image), base=base)
        return self._put(found.artifacts, image.digest)

    def _attach_kept(self, registry: Registry, package: Document, told: Container[str]) -> int:
        there = {each.digest for each in list_referrers(self._client, package.digest)}
        kept = [
            each
            for each in local.kept_artifacts(registry, package.digest)
            if each.digest not in there
            and not (package.digest in told and each.artifact_type == artifacts.PROVENANCE_TYPE)
        ]
        return self._put(kept, package.digest)

    def fetch(self, registry: Registry, package: str) -> int:
        """Brings what is attached to a package here; it is not believed, only kept.

        Args:
            registry: Where the package is.
            package: Its digest.

        Returns:
            How many artifacts there were.
        """
        brought = 0
        there = {each.digest for each in registry.referrers.list(package)}
        for entry in list_referrers(self._client, package):
            if entry.digest not in there:
                self._keep(registry, package, entry.digest)
                brought += 1
        return brought + self._fetch_tagged(registry, package) + self._fetch_told(registry)

    def _fetch_told(self, registry: Registry) -> int:
        """The provenance of packages that came without one: that of their images has it."""
        brought = 0
        root = self._client.manifest(self._reference.target)
        for package, statement in told_of_packages(self._client, self._images(root)):
            if registry.blobs.has(package) and find_provenance(registry, package) is None:
                keep_provenance(registry, statement, local.subject(registry, package))
                brought += 1
        return brought

    def _keep(self, registry: Registry, package: str, digest: str) -> None:
        manifest = self._client.manifest(digest)
        parsed = artifacts.parse(manifest.data)
        if parsed.config is None:
            return  # an index, which nothing here reads
        checks.Found(package).add(parsed, lambda _part: b"")  # refuses what speaks of another
        registry.referrers.attach(
            manifest.data,
            [self._client.read_blob(blob) for blob in manifest.blobs],
            subject=package,
            artifact_type=parsed.artifact_type or parsed.config.media_type,
        )

    def _fetch_tagged(self, registry: Registry, package: str) -> int:
        """What cosign's tags have that nothing else has: cosign itself signed it, say."""
        found = checks.Found(package)
        self._gather_tagged(package, found)
        evidence, kept = found.evidence(), local.evidence(registry, package)
        subject = local.subject(registry, package)
        signatures = [each for each in evidence.signatures if each not in kept.signatures]
        envelopes = [each for each in evidence.envelopes if each not in kept.envelopes]
        for artifact in (
            *(artifacts.signature(each, subject) for each in signatures),
            *(artifacts.attestation(each, _predicate_type(each), subject) for each in envelopes),
        ):
            attach_locally(registry, artifact)
        return len(signatures) + len(envelopes)

    def _images(self, root: Document) -> Iterator[Document]:
        """The image, or all images of an index."""
        if root.descriptor.media_type not in INDEXES:
            yield root
        for child in root.manifests:
            yield self._client.manifest(child.digest)

    def _with_packages(self, root: Document) -> Iterator[Document]:
        """All that is to be signed: images, the packages in them, the index."""
        listed = [*self._images(root)]
        if root.descriptor.media_type in INDEXES:
            listed.append(root)
        seen = set()
        for document in listed:
            for digest in (document.annotations.get(PACKAGE, ""), document.digest):
                if digests.is_digest(digest) and digest not in seen:
                    seen.add(digest)
                    found = document if digest == document.digest else self._beside(digest)
                    if found is not None:
                        yield found

    def _beside(self, package: str) -> Document | None:
        """The package of an image; a copy by another tool has left it behind."""
        try:
            return self._client.manifest(package)
        except NotFoundError:
            return None

    def _check_package(self, image: Document) -> None:
        package = image.annotations.get(PACKAGE, "")
        if not package:
            return
        try:
            found = self._client.manifest(package)
            config = self._client.read_blob(found.blobs[0])
        except NotFoundError as error:
            restored = restored_package(self._client, image, package)
            if restored is None:
                raise VerificationError(
                    f"The package {package} that {image.digest} says it holds is not in the "
                    "registry.",
                    hint="Push the package again; who copies the image copies the tag "
                    f"{image.digest.replace(':', '-')}.package as well ('skopeo sync' takes all).",
                ) from error
            found, config = restored
        require_package(image, self._client.read_blob(image.blobs[0]), found, config)

    def _evidence(self, document: Document) -> checks.Evidence:
        base = document.annotations.get(f"{_BASE}digest", "")
        layers = (layer.digest for layer in document.layers)
        found = checks.Found(document.digest, (*layers, *([base] if base else [])))
        self._gather(document.digest, found)
        return found.evidence()

    def _gather(self, digest: str, found: checks.Found) -> None:
        for entry in list_referrers(self._client, digest):
            found.add(self._manifest(entry.digest), self._read)
        self._gather_tagged(digest, found)

    def _gather_tagged(self, digest: str, found: checks.Found) -> None:
        for suffix in artifacts.SUFFIXES:
            image = self._tagged(digest, suffix)
            if image is not None:
                found.add(image, self._read)

    def _manifest(self, target: str) -> ArtifactManifest:
        return artifacts.parse(self._client.manifest(target).data)

    def _tagged(self, digest: str, suffix: Suffix) -> ArtifactManifest | None:
        try:
            return self._manifest(artifacts.tag(digest, suffix))
        except NotFoundError:
            return None

    def _read(self, part: Part) -> bytes:
        return read_part(self._client, part)

    def _put(self, made: Sequence[Artifact], digest: str) -> int:
        """Uploads artifacts, as referrers and where cosign looks for them; returns their bytes.

        They are listed last: what is listed is not sent again, and so has to be complete.
        """
        progress, limits = Progress(), self._options.limits
        batch = Batch(self._client, made, self._options.memory, progress)
        side_by_side(
            lambda upload: upload(), batch.uploads(), threads=limits.threads, progress=progress
        )
        for suffix in artifacts.SUFFIXES:
            image = self._merged(made, digest, suffix)
            if image is not None:
                to = self._client.reference.tagged(artifacts.tag(digest, suffix))
                push(_descriptor(image.manifest), TagDocuments(image), to, options=self._options)
        batch.finish()
        return sum(len(data) for each in made for data in (each.manifest, *each.blobs))

    def _merged(self, made: Iterable[Artifact], digest: str, suffix: Suffix) -> TagImage | None:
        """The image under cosign's tag with the new layers behind those that it has."""
        wanted = artifacts.ARTIFACT_TYPES[suffix]
        new = [
            layer
            for each in made
            if each.artifact_type == wanted
            for layer in artifacts.parse(each.manifest).layers
        ]
        if not new:
            return None
        before = self._tagged(digest, suffix)
        there = before.layers if before else ()
        return artifacts.tag_image([*there, *(layer for layer in new if layer not in there)])


def _subject(document: Document) -> Subject:
    described = document.descriptor
    return Subject(described.digest, described.size, described.media_type)


def _predicate_type(envelope: bytes) -> str:
    statement, _ = dsse.open_envelope(envelope, ())
    return slsa.parse_statement(statement).predicate_type


def _descriptor(manifest: bytes) -> Descriptor:
    return Descriptor(MANIFEST_TYPE, digests.of_bytes(manifest), len(manifest))
