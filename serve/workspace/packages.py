"""Packages: from a registered version, a script and an environment to a digest.

What builds them is imported where that is done: listing needs none of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scoring.bundle import Bundle, ScriptSpec
from scoring.errors import ModelNotFoundError, NotFoundError, UsageError
from scoring.prepare import COMPILED_PATH
from serve.packaging import reading
from serve.packaging.plan import BaseImage, BuildPlan, CodeFile, ModelFile
from serve.registry.records import Blob, ModelVersion, Package
from serve.roots import MODELS, registered_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.packaging.builders import BuiltImage
    from serve.packaging.contexts import Context
    from serve.packaging.images.basestore import BaseStore
    from serve.workspace import Workspace
    from serve.workspace.environments import Environments


class Packages:
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
        progress: Callable[[str], None] | None = None,
    ) -> Package:
        """Builds a package; the same inputs give the same digest on any machine, at any time.

        Args:
            model: A version, or a reference to one; None for a script that needs no model.
            script: A scoring script with `init` and `run`.
            source: The script's folder, packed whole; by default the script alone.
            environment: A registered environment; by default one that suits the model.
            base: The base image; only a reference until an image is exported.
            platform: `linux/amd64` or `linux/arm64`; by default this machine's.
            python: `3.11`; by default the environment's, else the running one.
            progress: Called with a sentence at each step.

        Raises:
            EnvironmentResolutionError: The environment does not resolve.
            IncompatibleEnvironmentError: It lacks what the model needs; `where` names the line.
            PackagingError: A file changed while it was read, or names clash.
        """
        from serve.packaging.build import build_package  # noqa: PLC0415
        from serve.packaging.cache import LayerCache  # noqa: PLC0415

        tell = progress or _silent
        tell("Resolving the environment")
        plan = self.plan(
            model,
            script=script,
            source=source,
            environment=environment,
            base=base,
            platform=platform,
            python=python,
        )
        tell(f"Building the layers of {plan.bundle.name}")
        with self._registry.blobs.hold():
            cache = LayerCache(self._registry.location.blobs / "cache" / "layers-built")
            built = build_package(plan, self._registry.blobs, cache)
            found = reading.read_package(built.digest, self._registry.blobs)
            return self._store.register(
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
            base=_base(base),
        )

    def get(self, ref: str) -> Package:
        """The package that a digest, the beginning of one, or NAME[:VERSION] names."""
        return self._store.get(ref)

    def list(self) -> tuple[Package, ...]:
        """All packages, the newest first."""
        return self._store.list()

    def describe(self, package: Package) -> reading.Package:
        """Manifest, configuration and layers of a package."""
        return reading.read_package(package.digest, self._registry.blobs)

    def verify(self, package: Package) -> None:
        """Reads every blob and compares it with its digest; raises DigestMismatchError."""
        reading.verify_package(package.digest, self._registry.blobs)

    def dockerfile(
        self, package: Package, folder: str | Path, *, base: str | None = None
    ) -> Context:
        """Writes a Dockerfile and its build context; `serve.packaging.contexts` has the details.

        Args:
            package: What the image holds.
            folder: Not there yet, empty, or one that was written before.
            base: An image's name, or a base of this machine (`rootfs:FILE`).
        """
        from serve.packaging import contexts  # noqa: PLC0415

        chosen = contexts.choose_base(base, self.describe(package))
        with self._registry.blobs.hold():
            return contexts.write_context(
                package.digest, self._registry.blobs, self._bases, Path(folder), base=chosen
            )

    def dockerfile_text(self, package: Package, *, base: str | None = None) -> str:
        """The Dockerfile that `dockerfile` would write."""
        from serve.packaging import contexts  # noqa: PLC0415

        chosen = contexts.choose_base(base, self.describe(package))
        return contexts.render(package.digest, self._registry.blobs, self._bases, base=chosen)

    def build_image(
        self,
        package: Package,
        builder: str,
        *,
        base: str | None = None,
        name: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> BuiltImage:
        """Builds a package's image through its Dockerfile, with `docker`, `buildah` or `podman`.

        Args:
            package: What the image holds.
            builder: Whose program builds it, and keeps it.
            base: As for `dockerfile`.
            name: Of the image; by default made of the model's name and the package's digest.
            progress: Called with each line that the builder writes.
        """
        from serve.packaging import builders, contexts  # noqa: PLC0415

        with self._registry.blobs.hold():
            return builders.build_image(
                package.digest,
                self._registry.blobs,
                self._bases,
                builder=builder,
                base=contexts.choose_base(base, self.describe(package)),
                name=name or builders.image_name(package.model or "", package.digest),
                work=self._registry.location.blobs / "cache" / "work",
                progress=progress or _silent,
            )

    @property
    def _bases(self) -> BaseStore:
        from serve.packaging.images.basestore import BaseStore  # noqa: PLC0415

        return BaseStore(self._registry.location.blobs / "cache" / "bases")

    def model_of(self, digest: str) -> str:
        """NAME:VERSION of a package's model; empty where the package is gone or has none."""
        try:
            package = self._store.get(digest) if digest else None
        except NotFoundError:
            return ""
        return (package.model_ref or package.model or "") if package else ""


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


def _base(text: str | None) -> BaseImage | None:
    if text is None:
        return None
    name, separator, digest = text.partition("@")
    if not separator:
        raise UsageError(
            f"The base {text!r} is not named by its digest.",
            hint="Write NAME@sha256:…, so that the package stays the same.",
        )
    return BaseImage(name=name, digest=digest)
