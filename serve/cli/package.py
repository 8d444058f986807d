"""The commands `fieldpost package …`."""

from __future__ import annotations

from pathlib import Path

import click

from serve.cli.output import changes, common, fields, note, size, table
from serve.cli.output import show as print_out


@click.command(help="Build the package of a model or a script.")
@click.argument("model", metavar="NAME[:VERSION]", required=False)
@click.option("--script", type=click.Path(path_type=Path), help="A scoring script (init and run).")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="The script's folder, packed whole. Default: the script alone.",
)
@click.option("--env", "environment", help="A registered environment: NAME or NAME:VERSION.")
@click.option("--base", help="The base image, by digest; a reference until an image is exported.")
@click.option("--platform", help="linux/amd64 or linux/arm64. Default: this machine's.")
@click.option("--python", help="The Python version, where no environment says it.")
@changes
@common
def build(
    model: str | None,
    script: Path | None,
    source: Path | None,
    environment: str | None,
    base: str | None,
    platform: str | None,
    python: str | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Builds the package of NAME, or of a script that needs no model."""
    from serve.workspace import Workspace

    if model is None and script is None:
        raise click.UsageError("Give a model's NAME[:VERSION], a --script, or both.")
    with Workspace(workspace) as opened:
        call = opened.packages.plan if dry_run else opened.packages.build
        package = call(
            model,
            script=script,
            source=source,
            environment=environment,
            base=base,
            platform=platform,
            python=python,
            progress=None if as_json else note,
        )
    if dry_run:
        print_out(package.to_dict(), package.to_text(), as_json=as_json)
        return
    print_out(package.to_dict(), f"Built {package.label}\n{package.digest}", as_json=as_json)


@click.command("list", help="List packages.")
@common
def list_packages(as_json: bool, workspace: str | None) -> None:
    """Lists packages, newest first."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        found = opened.packages.list()
    rows = [
        (
            package.digest[:19],
            package.label,
            package.platform,
            size(package.size),
            package.created_at[:19],
        )
        for package in found
    ]
    headings = ("PACKAGE", "MODEL", "PLATFORM", "SIZE", "CREATED")
    text = table(headings, rows) if rows else "No packages: 'fieldpost package build NAME'."
    print_out([package.to_dict() for package in found], text, as_json=as_json)


@click.command(help="Show a package: its layers, model, environment.")
@click.argument("ref")
@common
def show(ref: str, as_json: bool, workspace: str | None) -> None:
    """Shows REF: a digest, the beginning of one, or a model's NAME[:VERSION]."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        package = opened.packages.get(ref)
        details = opened.packages.describe(package)
    text = fields(
        [
            ("package", package.digest),
            ("model", package.label),
            ("platform", package.platform),
            ("environment", package.environment_hash),
            (
                "layers",
                "\n".join(f"{x.name:12} {size(x.size):>9}  {x.digest}" for x in details.layers),
            ),
            ("created", package.created_at),
        ]
    )
    print_out(package.to_dict() | details.to_dict(), text, as_json=as_json)


@click.command(help="Check every digest of a package.")
@click.argument("ref")
@common
def verify(ref: str, as_json: bool, workspace: str | None) -> None:
    """Reads every blob of REF and compares it with its digest."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        package = opened.packages.get(ref)
        opened.packages.verify(package)
    document = {"digest": package.digest, "verified": True}
    print_out(document, f"{package.digest} is whole.", as_json=as_json)
