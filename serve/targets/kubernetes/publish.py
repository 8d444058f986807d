"""Where a cluster finds the image of a package: pushed to its registry where it is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from scoring.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from serve.distribution.content import Descriptor
    from serve.distribution.options import Options
    from serve.distribution.reference import Reference
    from serve.packaging.images.imageset import ImageSet
    from serve.targets.base import Progress, TargetContext
    from serve.targets.kubernetes.settings import KubernetesSettings

_MIB = 1 << 20
_TAG_DIGITS = 16
_MEMORY_FOLDER = "registries"


class _Content:
    """The images of a package as a push reads them."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def open(self, descriptor: Descriptor) -> BinaryIO:
        return self._images.open(descriptor)

    def origins(self, digest: str) -> Sequence[Reference]:
        from serve.distribution.reference import Reference  # noqa: PLC0415 - for pushes only

        return [each for each in self._images.origins(digest) if isinstance(each, Reference)]


class Image(NamedTuple):
    """A package's image.

    Attributes:
        reference: `REGISTRY/NAME@sha256:…`.
        images: What is to be pushed; None for an image that was named.
    """

    reference: str
    images: ImageSet | None


def find_image(package: str, settings: KubernetesSettings, context: TargetContext) -> Image:
    """The image's name, which is known before it is pushed.

    Args:
        package: The package's digest.
        settings: With `image`, or with `registry` and perhaps `base`.
        context: Where packages and bases are kept.

    Raises:
        UsageError: Neither is given.
        PackagingError, NotFoundError: The package cannot be put on its base.
    """
    require_place(settings)
    if settings.image:
        return Image(settings.image, None)
    from serve.distribution.reference import parse_reference  # noqa: PLC0415 - as above

    images = _compose(package, settings, context)
    return Image(str(parse_reference(settings.registry or "").at(images.digest)), images)


def require_place(settings: KubernetesSettings) -> None:
    """Raises `UsageError` where nothing says from where the cluster pulls the image."""
    if not settings.image and not settings.registry:
        raise UsageError(
            "A cluster pulls images from a registry, and none is named.",
            hint="Add --set registry=REGISTRY/NAME, to which the image is pushed, or "
            "--set image=REGISTRY/NAME@sha256:….",
            where="registry",
        )


def publish(
    image: Image, settings: KubernetesSettings, context: TargetContext, progress: Progress
) -> None:
    """Pushes what the registry lacks of the image; nothing for one that was named.

    Raises:
        RegistryError: The registry refuses; `RegistryDeniedError` where a login is missing.
        UnreachableError, RegistryBusyError: It does not answer, or not now.
    """
    if image.images is None:
        return
    from serve.distribution.pushing import push  # noqa: PLC0415 - as above
    from serve.distribution.reference import parse_reference  # noqa: PLC0415

    progress(f"pushing the image to {settings.registry}")
    digest = image.images.digest
    # Registries clean up what has no tag.
    tag = f"fieldpost-{digest.partition(':')[2][:_TAG_DIGITS]}"
    done = push(
        image.images.root,
        _Content(image.images),
        parse_reference(settings.registry or "").tagged(tag),
        options=_options(settings, context),
    )
    if done.blobs_sent:
        progress(f"sent {done.blobs_sent} blobs, {done.bytes_sent / _MIB:.1f} MiB")


def _compose(package: str, settings: KubernetesSettings, context: TargetContext) -> ImageSet:
    from scoring.packages.reading import read_package  # noqa: PLC0415 - as above
    from serve.packaging.images.finding import BaseFinder  # noqa: PLC0415
    from serve.packaging.images.imageset import compose_all  # noqa: PLC0415

    finder = BaseFinder(context.cache_dir.parent, settings.base)

    def base_for(platform: str, digest: str) -> Any:
        return finder.base(platform, read_package(digest, context.blobs).annotations)

    return compose_all(package, base_for, context.blobs)


def _options(settings: KubernetesSettings, context: TargetContext) -> Options:
    from serve.distribution.hosts import Hosts  # noqa: PLC0415 - as above
    from serve.distribution.memory import Memory  # noqa: PLC0415
    from serve.distribution.options import Options  # noqa: PLC0415

    return Options(
        hosts=Hosts(plain_http=settings.plain_http),
        memory=Memory(context.cache_dir / _MEMORY_FOLDER),
    )
