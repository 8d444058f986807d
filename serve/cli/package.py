"""The commands `fieldpost package …`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from scoring.commands.output import changes, common, fields, note, size, table
from scoring.commands.output import show as print_out
from serve.cli.dockerfile import build_with, check_destination, require_builder

if TYPE_CHECKING:
    from scoring.packages.reading import Package as Details
    from serve.registry.records import Package
    from serve.workspace import Workspace


@click.command(help="Build the package of a model or a script.")
@click.argument("model", metavar="NAME[:VERSION]", required=False)
@click.option("--script", type=click.Path(path_type=Path), help="A scoring script (init and run).")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="The script's folder, packed whole. Default: the script alone.",
)
@click.option("--env", "environment", help="A registered environment: NAME or NAME:VERSION.")
@click.option(
    "--base", help="The base image: NAME[:TAG][@DIGEST], or rootfs:FILE, oci:DIR and their like."
)
@click.option(
    "--platform", help="linux/amd64, linux/arm64, or both with a comma. Default: this machine's."
)
@click.option("--python", help="The Python version, where no environment says it.")
@click.option(
    "--cache",
    metavar="REGISTRY/NAME",
    envvar="FIELDPOST_CACHE",
    help="Where a team shares environment layers. Default: $FIELDPOST_CACHE, else the workspace's.",
)
@click.option(
    "--builder",
    type=click.Choice(["docker", "buildah", "podman"]),
    help="Build the image as well, through a Dockerfile, on --base.",
)
@click.option("--push", "to", metavar="REGISTRY/NAME:TAG", help="Push the image when it is built.")
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
    cache: str | None,
    builder: str | None,
    to: str | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Builds the package of NAME, or of a script that needs no model."""
    from serve.workspace import Workspace

    if model is None and script is None:
        raise click.UsageError("Give a model's NAME[:VERSION], a --script, or both.")
    if builder and to:
        raise click.UsageError("--push sends our own image; push a --builder's with that program.")
    if to:
        check_destination(to)
    inputs: dict[str, Any] = {
        "script": script,
        "source": source,
        "environment": environment,
        "base": None if builder else base,  # the image's alone: a builder's need not have a digest
        "platform": platform,
        "python": python,
    }
    with Workspace(workspace) as opened:
        if dry_run:
            plans = _plans(opened, model, inputs)
            document = plans[0] if len(plans) == 1 else {"platforms": plans}
            print_out(document, "\n\n".join(map(_describe_plan, plans)), as_json=as_json)
            return
        if builder:
            if platform and "," in platform:
                raise click.UsageError("--builder builds for one --platform at a time.")
            require_builder(builder)
        package = opened.packages.build(
            model,
            **inputs,
            cache=cache,
            progress=None if as_json else note,
            meanwhile=_load_push if to else None,
        )
        details = opened.packages.describe(package)
        image = build_with(opened, package, builder, base, quiet=as_json) if builder else {}
        pushed = opened.packages.push(package, to) if to else None
    text = f"Built {_label(package)} ({size(package.size)})\n{package.digest}"
    document = _document(package, details) | ({"image": image} if image else {})
    text += f"\nImage {image['name']}\n{image['id']}" if image else ""
    if pushed:
        document |= {"pushed": msgspec.to_builtins(pushed)}
        text += f"\nPushed {pushed.reference} ({size(pushed.bytes_sent)} sent)\n{pushed.digest}"
    print_out(document, text, as_json=as_json)


def _load_push() -> None:
    """Imports what pushes: that takes a tenth of building and pushing another model."""
    importlib.import_module("serve.workspace.transfers")


def _plans(opened: Workspace, model: str | None, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """What would be built, for each platform."""
    from scoring.packages.platformindex import parse_platforms

    platforms = parse_platforms(inputs["platform"]) or (None,)
    return [
        opened.packages.plan(model, **inputs | {"platform": platform}).describe()
        for platform in platforms
    ]


def _describe_plan(plan: dict[str, Any]) -> str:
    environment = plan["environment"]
    files = [*plan["model_files"], *plan["code_files"]]
    return fields(
        [
            ("would build", f"{plan['name']}:{plan['model_version'] or '-'}"),
            ("runtime", plan["runtime"]),
            ("platform", f"{plan['platform']}, Python {plan['python']}"),
            ("environment", f"{environment['hash']}\n" + "\n".join(environment["packages"])),
            ("files", "\n".join(f"{file['path']}  {size(file['size'])}" for file in files)),
        ]
    )


def _label(package: Package) -> str:
    return package.model_ref or package.model or ""


def _document(package: Package, details: Details) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(package)
    return document | {"layers": msgspec.to_builtins(details.layers)}


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
            _label(package),
            package.platform,
            size(package.size),
            package.created_at[:19],
        )
        for package in found
    ]
    headings = ("PACKAGE", "MODEL", "PLATFORM", "SIZE", "CREATED")
    text = table(headings, rows) if rows else "No packages: 'fieldpost package build NAME'."
    print_out(found, text, as_json=as_json)


@click.command(help="Show a package: its layers, model, environment.")
@click.argument("ref")
@common
def show(ref: str, as_json: bool, workspace: str | None) -> None:
    """Shows REF: a digest, the beginning of one, or a model's NAME[:VERSION]."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        package = opened.packages.get(ref)
        details = opened.packages.describe(package)
        platforms = opened.packages.platforms(package)
    several = platforms if len(platforms) > 1 else {}
    text = fields(
        [
            ("package", package.digest),
            ("model", _label(package)),
            ("platform", package.platform),
            ("packages", "\n".join(f"{name:12} {each}" for name, each in several.items())),
            ("environment", package.environment),
            (
                "layers",
                "\n".join(f"{x.name:12} {size(x.size):>9}  {x.digest}" for x in details.layers),
            ),
            ("created", package.created_at),
        ]
    )
    more = {"annotations": details.annotations, "platforms": platforms}
    print_out(_document(package, details) | more, text, as_json=as_json)
