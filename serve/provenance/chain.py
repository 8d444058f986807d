"""From an image to the package in it: the same layers, and nothing over them. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scoring.errors import VerificationError
from scoring.packages.documents import ImageConfig
from serve.provenance.names import DECODE_ERRORS

if TYPE_CHECKING:
    from serve.distribution.documents import Document


def require_package(
    image: Document, image_config: bytes, package: Document, package_config: bytes
) -> None:
    """Checks that an image is the package that it says it is, on a base.

    Args:
        image: Its manifest.
        image_config: Its configuration, checked against its digest.
        package: The manifest of the package that the image names.
        package_config: That one's configuration, checked too.

    Raises:
        VerificationError: The image has other layers on top, or unpacks them to something else.
    """
    own = [layer.digest for layer in package.layers]
    inner, outer = _config(package_config), _config(image_config)
    named = [layer.digest for layer in image.layers]
    if not own or named[-len(own) :] != own:
        raise _other(image, package, "its layers are others")
    if outer.rootfs.diff_ids[-len(own) :] != inner.rootfs.diff_ids:
        raise _other(image, package, "its configuration names other contents")
    if len(outer.rootfs.diff_ids) != len(named) or len(inner.rootfs.diff_ids) != len(own):
        raise _other(image, package, "manifest and configuration name different layers")
    if (outer.os, outer.architecture) != (inner.os, inner.architecture):
        raise _other(image, package, "it is for another platform")


def _config(content: bytes) -> ImageConfig:
    try:
        return msgspec.json.decode(content, type=ImageConfig)
    except DECODE_ERRORS as error:
        raise VerificationError(f"An image's configuration cannot be read: {error}.") from error


def _other(image: Document, package: Document, why: str) -> VerificationError:
    return VerificationError(
        f"The image {image.digest} says that it holds the package {package.digest}, and {why}.",
        hint="Do not run it; push the package again from where it was built.",
    )
