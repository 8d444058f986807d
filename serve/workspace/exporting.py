"""Deployments and packages in the form of another tool: what is gathered, written, and said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from scoring.errors import NotFoundError, UsageError
from serve.registry.names import check_name
from serve.targets.kubernetes.export import Form, export_files
from serve.targets.kubernetes.export.source import carried, deployable
from serve.targets.kubernetes.export.writing import next_steps, write_files
from serve.targets.kubernetes.names import Names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve.registry.records import Deployment, Package
    from serve.registry.registry import Registry
    from serve.targets.kubernetes.deployable import Deployable
    from serve.targets.kubernetes.settings import KubernetesSettings
    from serve.workspace.packages import Packages

_PLACES = frozenset({"image", "registry"})


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was written, or would be.

    Attributes:
        name: Of the deployment.
        form: `yaml`, `kustomize`, `helm`, `kserve` or `ray`.
        folder: Where.
        files: Paths below it; of `ray` without those of the package.
        package: The digest.
        image: `REGISTRY/NAME@sha256:…`; empty where the package itself was written.
        left_out: Settings of the deployment that mean nothing in a cluster.
        next: What to do with it, as commands.
    """

    name: str
    form: Form
    folder: Path
    files: tuple[str, ...]
    package: str
    image: str
    left_out: tuple[str, ...]
    next: tuple[str, ...]


class _Found(NamedTuple):
    """What an export is made of."""

    of: Deployable
    left_out: list[str]


class Exporter:
    """Writes deployments of a workspace; see `Deployments.export`.

    Args:
        registry: That has them.
        packages: Of the same workspace.
    """

    def __init__(self, registry: Registry, packages: Packages) -> None:
        self._registry = registry
        self._packages = packages

    def export(
        self,
        name: str | None,
        folder: Path,
        form: Form,
        package: str | None,
        settings: Mapping[str, str],
        *,
        dry_run: bool,
    ) -> Exported:
        """See `Deployments.export`."""
        of, left_out = self._gather(name, package, form, settings)
        files = export_files(of, form)
        if not dry_run:
            write_files(files, folder)
            if form == "ray":
                self._copy_package(of, folder)
        names = Names.of(of.name)
        return Exported(
            name=of.name,
            form=form,
            folder=folder,
            files=tuple(sorted(files)),
            package=of.package.digest,
            image="" if form == "ray" else of.reference,
            left_out=tuple(left_out),
            next=tuple(
                next_steps(
                    form, folder, names.base, of.settings.env, names.secret, of.settings.namespace
                )
            ),
        )

    def _gather(
        self, name: str | None, ref: str | None, form: Form, given: Mapping[str, str]
    ) -> _Found:
        record = self._record(name, must=ref is None)
        package = self._packages.get(ref or _active(record))
        kept, left_out = carried(record)
        if _PLACES & set(given):  # one of them, whatever the deployment had
            kept = {key: text for key, text in kept.items() if key not in _PLACES}
        of = deployable(
            check_name(name or package.model or "model", "deployment"),
            package.digest,
            {**kept, **given},
            self._registry.blobs,
            lambda settings: self._image_digest(package, settings),
            form=form,
            revision=(record.active if record else None) or 1,
        )
        return _Found(of, left_out)

    def _image_digest(self, package: Package, settings: KubernetesSettings) -> str:
        return self._packages.image(package, base=settings.base).digest

    def _record(self, name: str | None, *, must: bool) -> Deployment | None:
        """The deployment; None for a name that only a package's objects are to have."""
        if name is None:
            return None
        try:
            return self._registry.deployments.get(name)
        except NotFoundError:
            if must:
                raise
            return None

    def _copy_package(self, of: Deployable, folder: Path) -> None:
        from scoring.packages.unpack import unpack_package  # noqa: PLC0415 - for one form only
        from serve.targets.kubernetes.export.ray_serve import copy_package  # noqa: PLC0415

        digest = of.package.digest
        cache = self._registry.location.blobs / "cache"
        copy_package(unpack_package(digest, self._registry.blobs, cache), folder, digest)


def _active(record: Deployment | None) -> str:
    revision = record.active_revision if record else None
    if revision is None:
        what = f"{record.name} has no revision that answers." if record else "No package is named."
        raise UsageError(what, hint="Name a package: --package REF.")
    return revision.package
