"""Packages: from a registered version, a script and an environment to a digest.

What builds them is imported where that is done: listing needs none of it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring import digest as digests
from scoring.bundle import COMPILED_PATH, Bundle, ScriptSpec
from scoring.errors import ModelNotFoundError, NotFoundError, UsageError
from scoring.packages import reading
from scoring.packages.platformindex import (
    package_manifests,
    parse_platforms,
    put_index,
    resolve,
    this_platform,
)
from serve.bundles import MODELS, registered_bundle
from serve.packaging.plan import BaseImage, BuildPlan, CodeFile, ModelFile
from serve.registry.records import Blob, ModelVersion, Package
from serve.workspace.distributing import Distributing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serve.bento.exporting import ExportedBento
    from serve.packaging.builders import BuiltImage
    from serve.packaging.contexts import Context
    from serve.packaging.images.finding import BaseFinder
    from serve.packaging.images.imageset import ImageSet
    from serve.packaging.sharedcache import SharedCache
    from serve.triton.exporting import ExportedRepository
    from serve.workspace import Workspace
    from serve.workspace.environments import Environments
    from serve.workspace.images import Exported, Images


class Packages(Distributing):
    """The built packages of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._registry = workspace.registry
        self._store = workspace.registry.packages

    @property
    def _environments(self) -> Environments:
        return self._workspace.environments

    def build(
        self,
        model: ModelVersion | str | None = None,
        *,
        script: str | Path | None = None,
        source: str | Path | None = None,
        environment: str | None = None,
        base: str | None = None,
        platform: str | None = None,
        python: str | None = None,
        cache: str | None = None,
        progress: Callable[[str], None] | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> Package:
        """Builds a package; the same inputs give the same digest on any machine, at any time.

        Args:
            model: A version, or a reference to one; None for a script that needs no model.
            script: A scoring script with `init` and `run`.
            source: The script's folder, packed whole; by default the script alone.
            environment: A registered environment; by default one that suits the model.
            base: The base image: `NAME@sha256:…` is a reference until an image is made; a tag, or
                a base of this machine (`rootfs:FILE`, `oci:FOLDER`), is looked up now.
            platform: `linux/amd64`, `linux/arm64`, or both with a comma between; by default this
                machine's.
            python: `3.11`; by default the environment's, else the running one.
            cache: `REGISTRY/NAME` where a team shares environment layers; by default
                `FIELDPOST_CACHE`, else the workspace's setting, else none.
            progress: Called with a sentence at each step.
            meanwhile: Called once in a thread, while layers are compressed and written, to make
                ready what comes after. Nobody waits for it, and its errors are lost.

        Raises:
            EnvironmentResolutionError: The environment does not resolve.
            IncompatibleEnvironmentError: It lacks what the model needs; `where` names the line.
            PackagingError: A file changed while it was read, or names clash.
        """
        inputs = {
            "script": script,
            "source": source,
            "environment": environment,
            "base": base,
            "python": python,
        }
        platforms = parse_platforms(platform) or (None,)
        shared = self._shared_cache(cache)
        with self._registry.blobs.hold():
            built = []
            for one in platforms:
                built.append(
                    self._build(model, one, inputs, shared, progress or _silent, meanwhile)
                )
                meanwhile = None
            if len(built) == 1:
                return built[0]
            return self._combine(built)

    def _build(
        self,
        model: ModelVersion | str | None,
        platform: str | None,
        inputs: dict[str, Any],
        shared: SharedCache | None,
        tell: Callable[[str], None],
        meanwhile: Callable[[], object] | None,
    ) -> Package:
        """The package for one platform."""
        from serve.packaging.build import build_package  # noqa: PLC0415
        from serve.packaging.cache import LayerCache  # noqa: PLC0415
        from serve.provenance import recording  # noqa: PLC0415

        started = recording.now()
        tell("Resolving the environment" + (f" for {platform}" if platform else ""))
        plan = self.plan(model, **inputs, platform=platform)
        tell(f"Building the layers of {plan.bundle.name}")
        if meanwhile:
            _beside(meanwhile)
        cache = LayerCache(self._registry.location.blobs / "cache" / "layers-built")
        built = build_package(
            plan,
            self._registry.blobs,
            cache,
            shared=shared,
            installed=lambda layer, site: recording.keep_environment(
                self._registry, plan, layer.digest, site
            ),
        )
        recording.keep_model(self._registry, plan, built.layers["model"].digest)
        found = reading.read_package(built.digest, self._registry.blobs)
        package = self._store.register(
            built.digest,
            [
                Blob(digest=found.config.digest, size=found.config.size),
                *(Blob(digest=layer.digest, size=layer.size) for layer in found.layers),
            ],
            model=plan.bundle.name,
            model_version=plan.bundle.model_version or None,
            environment=plan.lock.hash,
            platform=plan.lock.target.platform,
        )
        script = Path(inputs["script"]) if inputs["script"] else None
        recording.record_build(self._registry, plan, package.digest, started, script)
        return package

    def _combine(self, packages: Sequence[Package]) -> Package:
        """The index of one package for each platform, which is a package itself."""
        blobs = self._registry.blobs
        index = put_index({package.platform: package.digest for package in packages}, blobs)
        parts = {blob.digest: blob for package in packages for blob in package.blobs}
        manifests = [
            Blob(digest=package.digest, size=blobs.path(package.digest).stat().st_size)
            for package in packages
        ]
        first = packages[0]
        environments = {package.environment for package in packages}
        return self._store.register(
            index.digest,
            [*manifests, *parts.values()],
            model=first.model,
            model_version=first.model_version,
            environment=first.environment if len(environments) == 1 else None,
            platform=",".join(sorted(package.platform for package in packages)),
        )

    def plan(
        self,
        model: ModelVersion | str | None = None,
        *,
        script: str | Path | None = None,
        source: str | Path | None = None,
        environment: str | None = None,
        base: str | None = None,
        platform: str | None = None,
        python: str | None = None,
    ) -> BuildPlan:
        """What `build` would build, after the same checks; raises like it."""
        if model is None and script is None:
            raise UsageError("A package needs a model, a script, or both.")
        version = self._registry.models.get(model) if isinstance(model, str) else model
        code, spec = _code(script, source)
        bundle, files = _model(version, spec)
        lock = self._environments.for_package(
            environment,
            bundle.runtime,
            requirements=version.requirements if version and not bundle.script else (),
            native=_native(version, bundle),
            made_with=version.native_requirements if version else (),
            platform=platform,
            python=python,
        )
        return BuildPlan(
            bundle=bundle,
            lock=lock,
            model_files=files,
            code_files=code,
            model_digest=version.digest if version else "",
            base=self._base(base, lock.target.platform),
        )

    def _base(self, text: str | None, platform: str) -> BaseImage | None:
        if text is None:
            return None
        from serve.packaging.images.bases import is_local  # noqa: PLC0415
        from serve.packaging.images.finding import BaseFinder  # noqa: PLC0415

        name, separator, digest = text.partition("@")
        if separator and digests.is_digest(digest) and not is_local(text) and "=" not in name:
            return BaseImage(name=name, digest=digest)
        return BaseFinder(self._registry.location.blobs).pinned(text, platform)

    def get(self, ref: str) -> Package:
        """The package that a digest, the beginning of one, or NAME[:VERSION] names."""
        return self._store.get(ref)

    def list(self) -> tuple[Package, ...]:
        """All packages, the newest first."""
        return self._store.list()

    def describe(self, package: Package) -> reading.Package:
        """Manifest, configuration and layers of a package.

        Of one for several platforms those of all, one after another.
        """
        blobs = self._registry.blobs
        index = package_manifests(package.digest, blobs)
        if index is not None:
            return reading.read_several(package.digest, index, blobs)
        return reading.read_package(package.digest, self._registry.blobs)

    def platforms(self, package: Package) -> dict[str, str]:
        """The packages for each platform, by their digests; of one for a single platform itself."""
        index = package_manifests(package.digest, self._registry.blobs)
        if index is None:
            return {package.platform: package.digest}
        return {each.platform.name: each.digest for each in index.manifests if each.platform}

    def dockerfile(
        self,
        package: Package,
        folder: str | Path,
        *,
        base: str | None = None,
        platform: str | None = None,
    ) -> Context:
        """Writes a Dockerfile and its build context; `serve.packaging.contexts` has the details.

        Args:
            package: What the image holds.
            folder: Not there yet, empty, or one that was written before.
            base: A base, which may be one that only the builder knows; by default as for `image`.
            platform: Of a package for several, which one; by default this machine's.
        """
        from serve.packaging import contexts  # noqa: PLC0415

        blobs = self._registry.blobs
        with blobs.hold():
            one = self._for_one(package, platform)
            return contexts.write_context(one, blobs, self._finder(base), Path(folder))

    def dockerfile_text(
        self, package: Package, *, base: str | None = None, platform: str | None = None
    ) -> str:
        """The Dockerfile that `dockerfile` would write."""
        from serve.packaging import contexts  # noqa: PLC0415

        one = self._for_one(package, platform)
        return contexts.render(one, self._registry.blobs, self._finder(base))

    def build_image(
        self,
        package: Package,
        builder: str,
        *,
        base: str | None = None,
        platform: str | None = None,
        name: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> BuiltImage:
        """Builds a package's image through its Dockerfile, with `docker`, `buildah` or `podman`.

        Args:
            package: What the image holds.
            builder: Whose program builds it, and keeps it.
            base: As for `dockerfile`.
            platform: As for `dockerfile`.
            name: Of the image; by default made of the model's name and the package's digest.
            progress: Called with each line that the builder writes.
        """
        from serve.packaging import builders  # noqa: PLC0415

        with self._registry.blobs.hold():
            one = self._for_one(package, platform)
            return builders.build_image(
                one,
                self._registry.blobs,
                self._finder(base),
                builder=builder,
                name=name or builders.image_name(package.model or "", one),
                work=self._registry.location.blobs / "cache" / "work",
                progress=progress or _silent,
            )

    def _for_one(self, package: Package, platform: str | None) -> str:
        """The digest of a package for one platform: of several, this machine's where none is named.

        A package for one platform is that one, whatever machine this is.
        """
        several = len(self.platforms(package)) > 1
        if platform is None and not several:
            return next(iter(self.platforms(package).values()))
        return resolve(package.digest, self._registry.blobs, platform or this_platform())

    def _finder(self, base: str | None) -> BaseFinder:
        from serve.packaging.images.finding import BaseFinder  # noqa: PLC0415

        return BaseFinder(self._registry.location.blobs, base)

    @property
    def _images(self) -> Images:
        from serve.workspace.images import Images  # noqa: PLC0415

        return Images(self._registry)

    def image(
        self, package: Package, *, base: str | None = None, platform: str | None = None
    ) -> ImageSet:
        """Puts a package on a base; nothing is copied until somebody reads the image's layers.

        Args:
            package: The package.
            base: `registry/name[:tag][@digest]`, `oci:FOLDER[:TAG]`, `oci-archive:FILE`,
                `docker-archive:FILE`, `rootfs:FILE`; by default the package's own, that of
                `FIELDPOST_BASE`, or Python's own image.
            platform: Of a package of several platforms, only these (`linux/amd64`).

        Raises:
            NotFoundError: There is no such base.
            PackagingError: The base, or the package, is not for the platform.
            IncompatibleEnvironmentError: The base lacks the package's Python version.
            UnsafeArchiveError: The base's archive holds what no base may.
            UnreachableError: The base's registry does not answer.
        """
        return self._images.compose(package, base=base, platform=platform)

    def export(
        self,
        package: Package,
        to: str,
        *,
        format: str | None = None,  # noqa: A002 - as the command calls it
        base: str | None = None,
        platform: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Exported:
        """Writes a package's image to a file or an engine; a file is there whole or not at all.

        Args:
            package: The package.
            to: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]`,
                `docker-daemon:NAME:TAG`, `podman:NAME:TAG`.
            format: The format, where `to` does not begin with it.
            base: As for `image`.
            platform: As for `image`; Docker's archives and engines take one.
            progress: Called with a sentence at each step.

        Raises:
            UsageError: The destination has not its form.
            AlreadyExistsError: Something else is there.
            StorageFullError: No space is left; what was there is as it was.
            UnreachableError: No engine answers.
        """
        return self._images.export(
            package, to, kind=format, base=base, platform=platform, tell=progress or _silent
        )

    def export_bento(self, package: Package, to: str, *, kind: str | None = None) -> ExportedBento:
        """Writes a package as a Bento, which `bentoml serve` runs; see `serve.bento.exporting`.

        Args:
            package: The package.
            to: `bento:DIR`, `bento:FILE.bento` (or `.tar`, `.tar.gz`, `.zip`), or `bentoml:` or
                `bentoml:NAME` for BentoML's store.
            kind: `bento` or `bentoml`, where `to` does not begin with it.

        Raises:
            AlreadyExistsError: Something else is there.
            MissingDependencyError: BentoML is not installed.
            PackagingError: It is for another version of Python or another platform, or BentoML
                refuses it.
        """
        from serve.bento.exporting import export_bento  # noqa: PLC0415 - few need it

        return export_bento(self._registry, package.digest, to, kind=kind)

    def export_triton(
        self, package: Package, to: str, *, kind: str | None = None
    ) -> ExportedRepository:
        """Writes a package's model into a Triton model repository; see `serve.triton.exporting`.

        Args:
            package: The package.
            to: `triton:DIR`; a repository that is there gets one more model.
            kind: `triton`, where `to` does not begin with it.

        Raises:
            AlreadyExistsError: The repository has a model of that name.
            MissingDependencyError: tritonclient is not installed.
            PackagingError: The model has no compiled form, or tensors that Triton does not have.
        """
        from serve.triton.exporting import export_repository  # noqa: PLC0415 - few need it

        return export_repository(self._registry, package.digest, to, kind=kind)

    def take(self, place: str, *, platform: str | None = None) -> Package:
        """Reads a package back from what `export` wrote: the same package, by its digest.

        Args:
            place: `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`.
            platform: Of a package of several platforms, only this one.

        Raises:
            NotFoundError: There is no layout, or no image of that tag in it.
            PackagingError: The image holds no package.
            DigestMismatchError: A blob is damaged.
        """
        return self._images.take(place, platform=platform)

    def model_of(self, digest: str) -> str:
        """NAME:VERSION of a package's model; empty where the package is gone or has none."""
        try:
            package = self._store.get(digest) if digest else None
        except NotFoundError:
            return ""
        return (package.model_ref or package.model or "") if package else ""


def _beside(work: Callable[[], object]) -> None:
    """Does it in a thread that ends with the process at the latest."""

    def attempt() -> None:
        with suppress(Exception):
            work()

    threading.Thread(target=attempt, name="fieldpost-meanwhile", daemon=True).start()


def _silent(_sentence: str) -> None:
    """A `Progress` for those who want none."""


def _code(
    script: str | Path | None, source: str | Path | None
) -> tuple[tuple[CodeFile, ...], ScriptSpec | None]:
    if script is None:
        if source is not None:
            raise UsageError("--source goes with a script.", hint="Give --script as well.")
        return (), None
    from serve.packaging.code import collect_code  # noqa: PLC0415

    path = _in_source(Path(script), source)
    files = collect_code(path, Path(source) if source is not None else None)
    entry = path.resolve().relative_to(Path(source).resolve()) if source else Path(path.name)
    return files, ScriptSpec(entry=entry.as_posix())


def _in_source(script: Path, source: str | Path | None) -> Path:
    """The script, which may be named from here or from inside of its source folder."""
    candidates = [script] if source is None else [script, Path(source) / script]
    for path in candidates:
        if path.is_file() and (
            source is None or path.resolve().is_relative_to(Path(source).resolve())
        ):
            return path
    raise ModelNotFoundError(
        f"There is no script {str(script)!r}" + (f" in {source}." if source else "."),
        hint="Check the path; the script has to be inside of the --source folder.",
    )


def _model(
    version: ModelVersion | None, script: ScriptSpec | None
) -> tuple[Bundle, tuple[ModelFile, ...]]:
    """The package's description and the files of its model layer."""
    if version is None:
        assert script is not None
        name = Path(script.entry).stem.lower().replace("_", "-")
        return Bundle(name=name, runtime="script", script=script), ()
    folder = f"{MODELS}/{version.name}/{version.version}"
    originals = tuple(
        ModelFile(path=f"{folder}/{file.path}", digest=file.digest, size=file.size)
        for file in version.files
        if file.digest
    )
    if script is not None:
        bundle = Bundle(
            name=version.name,
            model_version=version.version,
            runtime="script",
            format=version.format,
            model_dir=folder,
            script=script,
        )
        return bundle, originals
    if version.serves == "compiled" and version.compiled is not None:
        form = version.compiled
        compiled = ModelFile(path=COMPILED_PATH, digest=form.digest, size=form.size)
        return registered_bundle(version, COMPILED_PATH), (compiled,)
    return registered_bundle(version, f"{folder}/{version.primary}"), originals


def _native(version: ModelVersion | None, bundle: Bundle) -> tuple[str, ...]:
    """What the original needs, where the original is loaded: natively, or by a script."""
    if version is None or (bundle.runtime == "onnx" and bundle.script is None):
        return ()
    return version.native_requirements
