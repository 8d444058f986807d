"""`fieldpost package export`: a package's image as a file, or straight into an engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoring.commands.output import changes, common, fields, note, show, size

if TYPE_CHECKING:
    from serve.bento.exporting import ExportedBento
    from serve.packaging.images.imageset import ImageSet

BASE_HELP = (
    "The base: NAME[:TAG][@DIGEST], oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE or "
    "rootfs:FILE. Default: the package's own, $FIELDPOST_BASE, or python:X.Y-slim."
)


@click.command(help="Write a package's image to a file or an engine.")
@click.argument("ref")
@click.argument("dest")
@click.option(
    "--format",
    "kind",
    type=click.Choice(
        [
            *("oci", "oci-archive", "docker-archive", "docker-daemon", "podman"),
            *("bento", "bentoml", "triton"),
        ]
    ),
    help="The format, where DEST does not begin with it.",
)
@click.option("--base", help=BASE_HELP)
@click.option("--platform", help="Of a package for several platforms, only these.")
@changes
@common
def export(
    ref: str,
    dest: str,
    kind: str | None,
    base: str | None,
    platform: str | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Puts REF on a base and writes the image to DEST.

    DEST is oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG],
    docker-daemon:NAME:TAG or podman:NAME:TAG; or, without a base, a Bento: bento:DIR,
    bento:FILE.bento, or bentoml:[NAME] for BentoML's store; or a Triton model repository:
    triton:DIR.
    """
    from serve.bento.places import is_bento_place
    from serve.triton.places import is_triton_place
    from serve.workspace import Workspace

    if is_bento_place(dest, kind) or is_triton_place(dest, kind):
        _export_other(ref, dest, kind, dry_run=dry_run, as_json=as_json, workspace=workspace)
        return
    with Workspace(workspace) as opened:
        package = opened.packages.get(ref)
        if dry_run:
            from serve.packaging.images.export import parse_destination

            place = str(parse_destination(dest, kind))
            images = opened.packages.image(package, base=base, platform=platform)
            plan = _plan(images, place)
            show(plan, _describe(plan), as_json=as_json)
            return
        done = opened.packages.export(
            package,
            dest,
            format=kind,
            base=base,
            platform=platform,
            progress=None if as_json else note,
        )
    text = f"{done.destination}: {size(done.size)}, {size(done.written)} written\n{done.digest}"
    show(done, text, as_json=as_json)


def _export_other(
    ref: str, dest: str, kind: str | None, *, dry_run: bool, as_json: bool, workspace: str | None
) -> None:
    """Forms without a base."""
    from serve.bento.places import is_bento_place
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        package = opened.packages.get(ref)
        if dry_run:
            place = dest if kind is None or dest.startswith(f"{kind}:") else f"{kind}:{dest}"
            plan = {"package": package.digest, "destination": place}
            show(plan, f"Would write {package.digest} to {place}.", as_json=as_json)
            return
        if is_bento_place(dest, kind):
            bento = opened.packages.export_bento(package, dest, kind=kind)
            text = f"{bento.tag}: {bento.destination}\nRun it: {_how_to_run(bento)}"
            show(bento, text, as_json=as_json)
            return
        made = opened.packages.export_triton(package, dest, kind=kind)
    command = f"tritonserver --model-repository {made.destination}"
    text = f"{made.model}/{made.version}: {made.destination}\nRun it: {command}"
    show(made, text, as_json=as_json)


def _how_to_run(bento: ExportedBento) -> str:
    """The command that serves a Bento: BentoML takes absolute paths alone, and imports files."""
    if bento.stored:
        return f"bentoml serve {bento.tag}"
    place = Path(bento.destination).absolute()
    named = shlex.quote(str(place))
    if place.is_dir():
        return f"bentoml serve {named}"
    return f"bentoml import {named} && bentoml serve {bento.tag}"


def _plan(images: ImageSet, place: str) -> dict[str, Any]:
    return {
        "digest": images.digest,
        "package": images.package.digest,
        "destination": place,
        "platforms": images.platforms,
        "size": images.size,
        "bases": [image.base.digest for image in images.images],
    }


def _describe(plan: dict[str, Any]) -> str:
    return fields(
        [
            ("would write", plan["destination"]),
            ("image", plan["digest"]),
            ("package", plan["package"]),
            ("platforms", ", ".join(plan["platforms"])),
            ("bases", "\n".join(plan["bases"])),
            ("size", size(plan["size"])),
        ]
    )
