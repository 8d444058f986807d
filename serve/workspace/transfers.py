"""Packages to registries and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import PackagingError, RegistryError, UnreachableError
from scoring.packages import platformindex
from scoring.packages.documents import INDEX_TYPE, LAYER_NAME, MANIFEST_TYPE, PACKAGE
from scoring.packages.reading import read_package
from serve.distribution.content import Descriptor, StoredContent
from serve.distribution.hosts import Hosts
from serve.distribution.memory import Memory
from serve.distribution.options import Options
from serve.distribution.pushing import plan_push, push
from serve.distribution.reference import DEFAULT_TAG, Reference, parse_reference
from serve.packaging.images.finding import BASE_VARIABLE
from serve.provenance.attaching import ImageAttachments
from serve.registry.records import Package
from serve.workspace.images import Images, register_package

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from serve.distribution.content import Content
    from serve.distribution.documents import Document
    from serve.packaging.images.compose import Image
    from serve.packaging.images.imageset import ImageSet
    from serve.registry import Registry

MEMORY_FOLDER = "cache/registries"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"

Tell = Callable[[int], None]
_MANIFESTS = (MANIFEST_TYPE, INDEX_TYPE)


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a push did.

    Attributes:
        reference: Where the image is now: repository and tag.
        digest: The image's, or that of the index of images: the name to deploy by.
        package: The package's digest.
        platforms: Of the images.
        bases: The digests of what they stand on; none for a package that was pushed by itself.
        bytes_sent: Of blobs and documents; what had to be sent twice counts twice.
        blobs_sent: How many blobs were sent,
        mounted: were taken from another repository of the registry,
        existing: and were there before.
        bytes_existing: The bytes of the mounted and of the existing.
        seconds: How long it took.
        warning: Why the package has no base, where that was nobody's choice; else empty.
    """

    reference: str
    digest: str
    package: str
    platforms: tuple[str, ...]
    bases: tuple[str, ...]
    bytes_sent: int
    blobs_sent: int
    mounted: int
    existing: int
    bytes_existing: int
    seconds: float
    warning: str = ""


class PushPlanned(msgspec.Struct, frozen=True, kw_only=True):
    """What a push would do; see `Pushed`.

    Attributes:
        reference: Where to.
        digest: The image's.
        package: The package's.
        platforms: Of the images.
        bases: What they stand on.
        missing: The digests of the blobs that the registry lacks.
        existing: How many it has.
        bytes_missing: What would be sent at most: some may be mounted.
        warning: See `Pushed`.
    """

    reference: str
    digest: str
    package: str
    platforms: tuple[str, ...]
    bases: tuple[str, ...]
    missing: tuple[str, ...]
    existing: int
    bytes_missing: int
    warning: str = ""


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull did.

    Attributes:
        reference: Where it came from: a mirror, perhaps.
        digest: Of what the reference named: an image, an index, or a package by itself.
        package: The package, which is in the workspace now.
        bytes_received: Of blobs and documents.
        blobs_fetched: How many blobs were received,
        existing: and were in the workspace before.
        seconds: How long it took.
    """

    reference: str
    digest: str
    package: Package
    bytes_received: int
    blobs_fetched: int
    existing: int
    seconds: float


class PullPlanned(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull would do; see `Pulled`.

    Attributes:
        reference: Where from.
        digest: Of what the reference names.
        package: The digest of the package in it.
        missing: The digests of the blobs that the workspace lacks.
        existing: How many it has.
        bytes_missing: What would be received.
    """

    reference: str
    digest: str
    package: str
    missing: tuple[str, ...]
    existing: int
    bytes_missing: int


@dataclass(frozen=True)
class _Outgoing:
    """What is to be pushed, whatever it is."""

    root: Descriptor
    content: Content
    package: str
    platforms: tuple[str, ...]
    beside: tuple[tuple[Descriptor, str], ...] = ()
    bases: tuple[str, ...] = ()
    warning: str = ""
    images: tuple[Image, ...] = ()
    members: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """The digests of the packages, and of the index of several."""
        return tuple(dict.fromkeys((*self.members, self.package)))


class _ImageContent:
    """The images of a package as a push reads them."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def open(self, descriptor: Descriptor) -> BinaryIO:
        return self._images.open(descriptor)

    def origins(self, digest: str) -> Sequence[Reference]:
        return [each for each in self._images.origins(digest) if isinstance(each, Reference)]


class Transfers:
    """The packages of a workspace, to registries and back.

    Args:
        registry: The workspace's.
        plain_http: Whether registries are asked over plain HTTP, wherever they are.
    """

    def __init__(self, registry: Registry, *, plain_http: bool = False) -> None:
        self._registry = registry
        self._options = Options(
            hosts=Hosts(plain_http=plain_http),
            memory=Memory(registry.location.blobs / MEMORY_FOLDER),
        )

    def push(
        self,
        package: Package,
        to: str,
        *,
        base: str | None = None,
        platform: str | None = None,
        bare: bool = False,
        attach: bool = True,
        progress: Tell | None = None,
    ) -> Pushed:
        """Puts a package on its base and brings the image to a registry; see `Packages.push`."""
        reference = _destination(to)
        with self._registry.blobs.hold():
            outgoing = self._outgoing(package, base, platform, bare=bare)
            attachments = ImageAttachments(self._registry, outgoing.images, outgoing.packages)
            done = push(
                outgoing.root,
                outgoing.content,
                reference,
                beside=outgoing.beside,
                attachments=attachments if attach else None,
                options=self._options,
                progress=progress,
            )
        pushed = Pushed(
            reference=str(reference),
            package=outgoing.package,
            platforms=outgoing.platforms,
            bases=outgoing.bases,
            warning=outgoing.warning or done.warning,
            **{name: getattr(done, name) for name in _COUNTED},
        )
        return self._with_signatures(pushed) if attachments.signs else pushed

    def _with_signatures(self, pushed: Pushed) -> Pushed:
        """Attaches what has a place of cosign's, too: the signatures of packages."""
        from serve.provenance.remote import Remote  # noqa: PLC0415 - for signed packages only

        try:
            with Remote(parse_reference(pushed.reference), self._options, writing=True) as remote:
                sent = remote.attach(self._registry)
        except RegistryError as error:  # the image is there, whole; some registries take no more
            warning = f"No signature was attached to the image: {error.message}"
            return msgspec.structs.replace(pushed, warning=pushed.warning or warning)
        return msgspec.structs.replace(pushed, bytes_sent=pushed.bytes_sent + sent)

    def plan(
        self,
        package: Package,
        to: str,
        *,
        base: str | None = None,
        platform: str | None = None,
        bare: bool = False,
    ) -> PushPlanned:
        """What `push` would send, after the same checks; the registry is asked."""
        reference = _destination(to)
        outgoing = self._outgoing(package, base, platform, bare=bare)
        plan = plan_push(
            outgoing.root,
            outgoing.content,
            reference,
            beside=outgoing.beside,
            options=self._options,
        )
        return PushPlanned(
            reference=str(reference),
            digest=plan.digest,
            package=outgoing.package,
            platforms=outgoing.platforms,
            bases=outgoing.bases,
            missing=tuple(each.digest for each in plan.missing),
            existing=plan.existing,
            bytes_missing=plan.bytes_missing,
            warning=outgoing.warning,
        )

    def pull(
        self, reference: str, *, platform: str | None = None, progress: Tell | None = None
    ) -> Pulled:
        """Brings a package from a registry into the workspace; see `Packages.pull`."""
        from serve.distribution.pulling import pull  # noqa: PLC0415 - pushes need none of it
        from serve.packaging.images.restoring import restore  # noqa: PLC0415

        with self._registry.blobs.hold():
            found = pull(
                parse_reference(reference),
                self._registry.blobs,
                platform=platform,
                instead=PACKAGE,
                rebuild=restore,
                options=self._options,
                progress=progress,
            )
            digest = _package_digest(found.documents, found.reference, platform)
            self._require(digest, platform)
            package = register_package(self._registry, digest)
        return Pulled(
            reference=found.reference,
            digest=found.named,
            package=package,
            bytes_received=found.bytes_received,
            blobs_fetched=found.blobs_fetched,
            existing=found.existing,
            seconds=found.seconds,
        )

    def plan_pull(self, reference: str, *, platform: str | None = None) -> PullPlanned:
        """What `pull` would fetch; nothing is stored."""
        from serve.distribution.pulling import plan_pull  # noqa: PLC0415 - as above
        from serve.packaging.images.restoring import restore  # noqa: PLC0415

        found = plan_pull(
            parse_reference(reference),
            self._registry.blobs,
            platform=platform,
            instead=PACKAGE,
            rebuild=restore,
            options=self._options,
        )
        return PullPlanned(
            reference=found.reference,
            digest=found.named,
            package=_package_digest(found.documents, found.reference, platform),
            missing=tuple(each.digest for each in found.missing),
            existing=found.existing,
            bytes_missing=found.bytes_missing,
        )

    def _require(self, digest: str, platform: str | None) -> None:
        blobs = self._registry.blobs
        if platform is None or platformindex.package_manifests(digest, blobs) is not None:
            return
        found = read_package(digest, blobs).platform
        if found != platform:
            raise PackagingError(
                f"The package is for {found}, and not for {platform}.",
                hint="Pull it without --platform, or push one that was built for both.",
            )

    def _outgoing(
        self, package: Package, base: str | None, platform: str | None, *, bare: bool
    ) -> _Outgoing:
        if bare:
            return self._alone(package, platform)
        try:
            images = Images(self._registry).compose(package, base=base, platform=platform)
        except UnreachableError as error:
            if base or self._names_a_base(package):
                raise
            warning = (
                f"No base was named, and the usual one cannot be had ({error.message.rstrip('.')}):"
                " the package was pushed by itself. Fieldpost can pull and run it; for an image "
                f"that engines run, name a base with --base or {BASE_VARIABLE}."
            )
            return self._alone(package, platform, warning)
        return _with_base(images)

    def _names_a_base(self, package: Package) -> bool:
        if os.environ.get(BASE_VARIABLE):
            return True
        blobs = self._registry.blobs
        index = platformindex.package_manifests(package.digest, blobs)
        each = [package.digest] if index is None else [entry.digest for entry in index.manifests]
        annotations = [read_package(digest, blobs).annotations for digest in each]
        return any(names.get(BASE_NAME) or names.get(BASE_DIGEST) for names in annotations)

    def _alone(self, package: Package, platform: str | None, warning: str = "") -> _Outgoing:
        """The package without a base: for those who have one of their own, and for edge devices."""
        blobs = self._registry.blobs
        index = platformindex.package_manifests(package.digest, blobs)
        digest, kind = package.digest, MANIFEST_TYPE if index is None else INDEX_TYPE
        members = tuple(each.digest for each in index.manifests) if index else ()
        platforms = tuple(package.platform.split(","))
        wanted = platformindex.parse_platforms(platform)
        if index is not None and len(wanted) == 1:
            digest, kind = platformindex.for_platform(index, wanted[0]), MANIFEST_TYPE
            platforms, members = wanted, ()
        elif wanted and set(wanted) != set(platforms):
            raise PackagingError(
                f"The package is for {package.platform}, and not for {platform}.",
                hint="Push it without --platform.",
            )
        root = Descriptor(kind, digest, blobs.path(digest).stat().st_size)
        content = StoredContent(blobs)
        return _Outgoing(
            root, content, digest, platforms=platforms, warning=warning, members=members
        )


_COUNTED = (
    "digest",
    "bytes_sent",
    "blobs_sent",
    "mounted",
    "existing",
    "bytes_existing",
    "seconds",
)


def _destination(text: str) -> Reference:
    reference = parse_reference(text)
    return reference if reference.tag or reference.digest else reference.tagged(DEFAULT_TAG)


def _with_base(images: ImageSet) -> _Outgoing:
    """The images, and the package's own documents beside them: a pull wants the same package back.

    They name the same layers, and have a tag of their own, since registries clean up what has none.
    """
    beside = tuple(
        (each, f"{images.digest.replace(':', '-')}.package" if each == images.package else "")
        for each in images.companions()
        if each.media_type in _MANIFESTS
    )
    return _Outgoing(
        images.root,
        _ImageContent(images),
        images.package.digest,
        platforms=images.platforms,
        beside=beside,
        bases=tuple(image.base.digest for image in images.images),
        images=images.images,
        members=tuple(image.package.digest for image in images.images),
    )


def _package_digest(found: Sequence[Document], place: str, platform: str | None) -> str:
    """The package among what was pulled: of an index, with one platform asked for, that one's.

    Raises:
        PackagingError: It is an image of something else.
    """
    documents = {each.digest: each for each in found}
    root = found[0]
    if root.manifests and platform is not None:
        root = next((each for each in found if not each.manifests), root)
    below = [documents.get(each.digest) for each in root.manifests] or [root]
    if not all(each is not None and _is_package(each) for each in below):
        raise PackagingError(
            f"{place} is no package of Fieldpost.",
            hint="Pull what 'fieldpost package push' has pushed; engines pull other images.",
        )
    return root.digest


def _is_package(document: Document) -> bool:
    return bool(document.layers) and all(LAYER_NAME in each.annotations for each in document.layers)
