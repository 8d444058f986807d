"""Gets the image of a package into an engine: composed here and loaded, or pulled by the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import DeploymentFailedError, NotFoundError
from scoring.packages.documents import PACKAGE, Manifest
from scoring.packages.platformindex import package_manifests
from serve.targets.docker.specs import ImageFacts

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from serve.distribution.credentials import Credential
    from serve.engines import Engine
    from serve.targets.base import Progress, TargetContext
    from serve.targets.docker.settings import DockerSettings

_MIB = 1 << 20


def obtain(
    engine: Engine,
    package: str,
    settings: DockerSettings,
    context: TargetContext,
    progress: Progress,
) -> ImageFacts:
    """The package's image, in the engine.

    Args:
        engine: Where it is to run.
        package: The digest.
        settings: With a base, or with an image to pull.
        context: Where packages and bases are kept.
        progress: Takes a sentence.

    Raises:
        DeploymentFailedError: The image to pull holds another package.
        TargetError: The engine does not take it.
        PackagingError: There is none for the engine's platform.
        NotFoundError: There is no such base, or no such image in the registry.
    """
    if settings.image:
        return _pull(engine, settings.image, package, context, progress)
    return _load(engine, package, settings, context, progress)


def _load(
    engine: Engine,
    package: str,
    settings: DockerSettings,
    context: TargetContext,
    progress: Progress,
) -> ImageFacts:
    from serve.packaging.images.finding import BaseFinder  # noqa: PLC0415 - heavy
    from serve.packaging.images.imageset import compose_all  # noqa: PLC0415

    progress("putting the package on its base")
    finder = BaseFinder(context.cache_dir.parent, settings.base)
    blobs = context.blobs

    def base_for(platform: str, digest: str) -> Any:
        manifest = msgspec.json.decode(blobs.path(digest).read_bytes(), type=Manifest)
        return finder.base(platform, manifest.annotations)

    images = compose_all(package, base_for, blobs, platforms=[engine.platform])
    image = images.image(engine.platform)
    progress(f"giving the image to the {engine.kind} engine")
    loaded = engine.load(image)
    if loaded.sent:
        progress(f"sent {loaded.layers} layers, {loaded.sent / _MIB:.1f} MiB")
    return _facts(engine, loaded.id, {image.package.digest})


def _pull(
    engine: Engine, text: str, package: str, context: TargetContext, progress: Progress
) -> ImageFacts:
    from serve.distribution.credentials import Logins  # noqa: PLC0415 - only for pulls
    from serve.distribution.reference import parse_reference  # noqa: PLC0415

    reference = parse_reference(text)
    wanted = reference.digest or reference.tag or "latest"
    name = f"{reference.name}{'@' if reference.digest else ':'}{wanted}"
    # A digest always means the same; a tag may have moved since.
    if not (reference.digest and engine.image(name)):
        progress(f"pulling {name}")
        engine.pull(reference.name, wanted, _login(Logins().find(reference)))
    if engine.image(name) is None:
        raise NotFoundError(f"{engine.where} has pulled {name}, and does not have it.")
    index = package_manifests(package, context.blobs)
    parts = {entry.digest for entry in index.manifests} if index else set()
    return _facts(engine, name, {package} | parts)


def _login(found: Credential | None) -> dict[str, str] | None:
    """As the engine takes it; None leaves it to what the engine itself knows."""
    if found is None:
        return None
    given = {
        "username": found.username,
        "password": found.password,
        "identitytoken": found.identity_token,
        "registrytoken": found.registry_token,
    }
    return {key: text for key, text in given.items() if text}


def _facts(engine: Engine, reference: str, packages: AbstractSet[str]) -> ImageFacts:
    found = engine.image(reference) or {}
    config = found.get("Config") or {}
    labels = config.get("Labels") or {}
    inside = labels.get(PACKAGE, "")
    if inside not in packages:
        what = f"the package {inside}" if inside else "no package of Fieldpost"
        raise DeploymentFailedError(
            f"The image {reference} holds {what}, and not the one that is to be deployed.",
            hint="Push the package first: 'fieldpost package push REF REGISTRY/NAME:TAG'.",
            where="image",
        )
    command = (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()))
    return ImageFacts(str(found["Id"]), tuple(map(str, command)), inside)
