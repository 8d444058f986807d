"""`fieldpost deployment export`: a deployment in the form of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoring.commands.output import changes, common, note, pairs, show

if TYPE_CHECKING:
    from serve.registry.records import Deployment
    from serve.targets.kubernetes.deployable import Deployable
    from serve.targets.kubernetes.export import Form
    from serve.targets.kubernetes.settings import KubernetesSettings
    from serve.workspace import Workspace

_FORMS = ("yaml", "kustomize", "helm", "kserve", "ray")


@click.command(help="Write a deployment for Kubernetes' or Ray's own tools.")
@click.argument("what", nargs=-1, required=True, metavar="[NAME] DIR")
@click.option("--package", metavar="REF", help="A digest or NAME[:VERSION], in place of NAME's.")
@click.option(
    "--form",
    type=click.Choice(_FORMS),
    default="yaml",
    show_default=True,
    help="Plain YAML, a Kustomize base, a Helm chart, KServe, or a Ray Serve application.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated."
)
@changes
@common
def export(
    what: tuple[str, ...],
    package: str | None,
    form: Form,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Writes NAME, or a package, to DIR; images are named by digest, and no secret is written."""
    from serve.targets.kubernetes.export import export_files
    from serve.targets.kubernetes.export.writing import write_files
    from serve.workspace import Workspace

    name, folder = _arguments(what, package)
    with Workspace(workspace) as opened:
        of, left_out = _deployable(opened, name, package, form, pairs(settings, "--set"))
        files = export_files(of, form)
        if not dry_run:
            write_files(files, folder)
            if form == "ray":
                _copy_package(opened, of, folder)
    document = _document(of, form, folder, sorted(files), left_out)
    if left_out and not as_json:
        note(f"not carried over, for they mean nothing in a cluster: {', '.join(left_out)}")
    verb = "Would write" if dry_run else "Wrote"
    lines = [f"{verb} {len(files)} file{'s' * (len(files) > 1)} to {folder}. Next:"]
    show(
        document, "\n".join([*lines, *(f"  {each}" for each in document["next"])]), as_json=as_json
    )


def _arguments(what: tuple[str, ...], package: str | None) -> tuple[str | None, Path]:
    *names, folder = what
    if len(names) > 1 or not (names or package):
        raise click.UsageError("Give NAME DIR, or --package REF DIR.")
    return (names[0] if names else None), Path(folder)


def _deployable(
    opened: Workspace, name: str | None, ref: str | None, form: Form, given: dict[str, str]
) -> tuple[Deployable, list[str]]:
    from serve.registry.names import check_name
    from serve.targets.kubernetes.export.source import carried, deployable

    record = _record(opened, name, must=ref is None)
    package = opened.packages.get(ref or _active(record))
    kept, left_out = carried(record)
    merged = kept | given
    if "image" in given or "registry" in given:  # one of them, whatever the deployment had
        merged = {key: text for key, text in merged.items() if key in given or key not in _PLACES}

    def image_digest(settings: KubernetesSettings) -> str:
        return opened.packages.image(package, base=settings.base).digest

    chosen = check_name(name or package.model or "model", "deployment")
    revision = (record.active if record else None) or 1
    blobs = opened.registry.blobs
    of = deployable(
        chosen, package.digest, merged, blobs, image_digest, form=form, revision=revision
    )
    return of, left_out


_PLACES = frozenset({"image", "registry"})


def _record(opened: Workspace, name: str | None, *, must: bool) -> Deployment | None:
    from scoring.errors import NotFoundError

    if name is None:
        return None
    try:
        return opened.registry.deployments.get(name)
    except NotFoundError:
        if must:
            raise
        return None  # a name for a package's objects


def _active(record: Deployment | None) -> str:
    from scoring.errors import UsageError

    revision = record.active_revision if record else None
    if record is not None and revision is None:
        raise UsageError(
            f"{record.name} has no revision that answers.", hint="Name a package: --package REF."
        )
    assert revision is not None
    return revision.package


def _copy_package(opened: Workspace, of: Deployable, folder: Path) -> None:
    from scoring.packages.unpack import unpack_package
    from serve.targets.kubernetes.export.ray_serve import copy_package

    location = opened.registry.location
    digest = of.package.digest
    root = unpack_package(digest, opened.registry.blobs, location.blobs / "cache")
    copy_package(root, folder, digest)


def _document(
    of: Deployable, form: Form, folder: Path, files: list[str], left_out: list[str]
) -> dict[str, Any]:
    from serve.targets.kubernetes.export.writing import next_steps
    from serve.targets.kubernetes.objects.meta import names_of

    names = names_of(of)
    return {
        "name": of.name,
        "form": form,
        "folder": folder,
        "files": files,
        "package": of.package.digest,
        "image": "" if form == "ray" else of.reference,
        "left_out": left_out,
        "next": next_steps(form, folder, names.base, of.settings.env, names.secret),
    }
