"""The Dockerfile road: `fieldpost package dockerfile`, and what `package build --builder` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from scoring.commands.output import changes, common, note, show, size

if TYPE_CHECKING:
    from serve.registry.records import Package
    from serve.workspace import Workspace


@click.command(help="Write a Dockerfile and its build context.")
@click.argument("ref")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--base", help="The base: a name that the builder knows, or rootfs:FILE.")
@click.option("--platform", help="Of a package for several, which one. Default: this machine's.")
@changes
@common
def dockerfile(
    ref: str,
    folder: Path,
    base: str | None,
    platform: str | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Writes the layers of REF and a Dockerfile that stacks them into DIR."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        package = opened.packages.get(ref)
        if dry_run:
            text = opened.packages.dockerfile_text(package, base=base, platform=platform)
            document = {"package": package.digest, "folder": folder, "dockerfile": text}
            show(document, text.rstrip("\n"), as_json=as_json)
            return
        context = opened.packages.dockerfile(package, folder, base=base, platform=platform)
    text = (
        f"Wrote {len(context.files)} files ({size(context.size)}) to {folder}.\n"
        f"Build the image: docker build {folder}"
    )
    show(context, text, as_json=as_json)


def require_builder(name: str) -> None:
    """Refuses a builder that is not installed, before anything is built."""
    from serve.packaging.builders import check_builder

    check_builder(name)


def check_destination(text: str) -> None:
    """Refuses what is no reference, before anything is built."""
    from serve.distribution.reference import parse_reference

    parse_reference(text)


def build_with(
    opened: Workspace, package: Package, builder: str, base: str | None, *, quiet: bool
) -> dict[str, Any]:
    """Builds a package's image for `package build --builder`; what it made, for `--json`."""
    image = opened.packages.build_image(
        package, builder, base=base, progress=None if quiet else note
    )
    document: dict[str, Any] = msgspec.to_builtins(image)
    return document
