"""`fieldpost model …`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve.cli.output import changes, common, fields, note, pairs, show as print_out, size, table

if TYPE_CHECKING:
    from serve.registry.models import ModelVersion


@click.command(help="Register a model file or folder.")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag; may be repeated.")
@click.option("--description", default="", help="A sentence about this version.")
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="Inputs to compare the compiled form on, and to take the schema from: JSON, CSV, NPY, Parquet.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-5,
    show_default=True,
    help="How far probabilities of the compiled form may be from the original's.",
)
@click.option(
    "--trust-pickle", is_flag=True, help="Load a pickle, which can run any code; recorded."
)
@click.option(
    "--trust-type",
    "trusted_types",
    multiple=True,
    metavar="TYPE",
    help="A further type that a skops file may hold; may be repeated.",
)
@click.option("--format", "expected", help="Fail unless the file is of this format.")
@changes
@common
def register(
    name: str,
    path: Path,
    tags: tuple[str, ...],
    description: str,
    sample: Path | None,
    tolerance: float,
    trust_pickle: bool,
    trusted_types: tuple[str, ...],
    expected: str | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Registers the next version of NAME from PATH."""
    from serve.workspace import Workspace  # noqa: PLC0415

    with Workspace(workspace) as opened:
        call = opened.models.plan if dry_run else opened.models.register
        version = call(
            name,
            path,
            tags=pairs(tags, "--tag"),
            description=description,
            sample=sample,
            tolerance=tolerance,
            trust_pickle=trust_pickle,
            trusted_types=trusted_types,
            expected_format=expected,
        )
    verb = "Would register" if dry_run else "Registered"
    headline = f"{verb} {version.name}:{version.version} ({version.format}, {_serving(version)})."
    print_out(version.to_dict(), headline, as_json=as_json)


def _serving(version: ModelVersion) -> str:
    compilation = version.compilation
    if version.serves == "compiled" and compilation is not None:
        return "serves compiled to ONNX, equal to the original"
    reason = f": {compilation.reason}" if compilation is not None else ""
    return f"serves the original{reason}".rstrip(".")


@click.command("list", help="List models and their versions.")
@click.argument("name", required=False)
@click.option("--tag", "tags", multiple=True, metavar="KEY[=VALUE]", help="Only those so tagged.")
@common
def list_models(
    name: str | None, tags: tuple[str, ...], as_json: bool, workspace: str | None
) -> None:
    """Lists versions, newest first."""
    from serve.workspace import Workspace  # noqa: PLC0415

    wanted: dict[str, str | None] = {}
    for entry in tags:
        key, separator, value = entry.partition("=")
        wanted[key] = value if separator else None
    with Workspace(workspace) as opened:
        versions = opened.models.list(name, tags=wanted)
    rows = [
        (
            f"{version.name}:{version.version}",
            version.format,
            version.serves,
            size(sum(file.size for file in version.files)),
            version.created_at[:19].replace("T", " "),
            version.created_by,
            " ".join(f"{key}={value}" for key, value in sorted(version.tags.items())),
        )
        for version in versions
    ]
    headings = ("MODEL", "FORMAT", "SERVES", "SIZE", "CREATED", "BY", "TAGS")
    text = table(headings, rows) if rows else "No models yet: 'fieldpost model register NAME PATH'."
    print_out([version.to_dict() for version in versions], text, as_json=as_json)


@click.command(help="Show all that is known of a version.")
@click.argument("ref")
@common
def show(ref: str, as_json: bool, workspace: str | None) -> None:
    """Shows REF: a name, or NAME:VERSION."""
    from serve.workspace import Workspace  # noqa: PLC0415

    with Workspace(workspace) as opened:
        version = opened.models.get(ref)
        used_by = opened.models.used_by(version)
    document = version.to_dict() | {"used_by": used_by}
    print_out(document, _describe(version, used_by), as_json=as_json)


def _describe(version: ModelVersion, used_by: list[str]) -> str:
    commit = version.source_commit and version.source_commit + (
        " (with uncommitted changes)" if version.source_dirty else ""
    )
    return fields(
        [
            ("model", f"{version.name}:{version.version}"),
            ("digest", version.digest),
            ("description", version.description),
            ("format", version.format),
            ("made with", ", ".join(f"{k} {v}" for k, v in sorted(version.made_with.items()))),
            ("serves", _describe_serving(version)),
            ("inputs", _describe_tensors(version.schema, "inputs")),
            ("outputs", _describe_tensors(version.schema, "outputs")),
            ("classes", ", ".join(map(str, version.schema.classes)) if version.schema else ""),
            ("tags", ", ".join(f"{k}={v}" for k, v in sorted(version.tags.items()))),
            ("files", "\n".join(f"{f.path}  {size(f.size)}  {f.digest}" for f in version.files)),
            ("trusted pickle", "yes" if version.pickle_trusted else ""),
            ("trusted types", ", ".join(version.trusted_types)),
            ("commit", commit),
            ("created", f"{version.created_at} by {version.created_by}"),
            ("used by", ", ".join(used_by)),
        ]
    )


def _describe_serving(version: ModelVersion) -> str:
    compilation = version.compilation
    if compilation is None:
        return version.serves
    lines = [f"{version.serves}: {compilation.reason}" if compilation.reason else version.serves]
    if compilation.rows_compared:
        lines.append(
            f"compared on {compilation.rows_compared} rows: "
            f"{compilation.label_mismatches} labels differ, "
            f"largest difference {compilation.max_difference:.3g} "
            f"(tolerance {compilation.tolerance:g})"
        )
    return "\n".join(lines)


def _describe_tensors(schema: Any, side: str) -> str:
    if schema is None:
        return ""
    return "\n".join(
        f"{spec.name}  {spec.dtype}  ({', '.join('any' if d is None else str(d) for d in spec.shape)})"
        + ("  may be missing" if spec.missing else "")
        for spec in getattr(schema, side)
    )


@click.command(help="Set or remove tags of a version.")
@click.argument("ref")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", multiple=True, metavar="KEY", help="Remove a tag; may be repeated.")
@changes
@common
def tag(
    ref: str,
    tags: tuple[str, ...],
    remove: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Sets the tags KEY=VALUE of REF."""
    from serve.workspace import Workspace  # noqa: PLC0415

    if not tags and not remove:
        raise click.UsageError("Give at least one KEY=VALUE, or --remove KEY.")
    changed = pairs(tags, "KEY=VALUE")
    with Workspace(workspace) as opened:
        version = opened.models.get(ref)
        after = {k: v for k, v in (version.tags | changed).items() if k not in remove}
        if not dry_run:
            version = opened.models.tag(ref, set=changed, remove=list(remove))
            after = version.tags
    text = f"{version.name}:{version.version} " + " ".join(f"{k}={v}" for k, v in after.items())
    document = {"name": version.name, "version": version.version, "tags": after}
    print_out(document, text, as_json=as_json)


@click.command(help="Compare two versions.")
@click.argument("first")
@click.argument("second")
@common
def diff(first: str, second: str, as_json: bool, workspace: str | None) -> None:
    """Compares FIRST with SECOND."""
    from serve.workspace import Workspace  # noqa: PLC0415

    with Workspace(workspace) as opened:
        result = opened.models.diff(first, second)
    print_out(result.to_dict(), result.to_text(), as_json=as_json)


@click.command(help="Copy a version's files out, checked.")
@click.argument("ref")
@click.argument("destination", type=click.Path(path_type=Path), default=None, required=False)
@click.option("--force", is_flag=True, help="Replace the destination where it exists.")
@common
def download(
    ref: str, destination: Path | None, force: bool, as_json: bool, workspace: str | None
) -> None:
    """Copies the files of REF to DESTINATION (default: a folder NAME-VERSION here)."""
    from serve.workspace import Workspace  # noqa: PLC0415

    with Workspace(workspace) as opened:
        version = opened.models.get(ref)
        target = destination or Path(f"{version.name}-{version.version}")
        opened.models.download(ref, target, replace=force)
    document = {
        "name": version.name,
        "version": version.version,
        "path": str(target),
        "files": [file.path for file in version.files],
    }
    print_out(document, f"Wrote {len(version.files)} files to {target}.", as_json=as_json)


@click.command(help="Delete a version that nothing uses.")
@click.argument("ref")
@click.option("--yes", is_flag=True, help="Do not ask.")
@changes
@common
def delete(ref: str, yes: bool, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Deletes REF, a NAME:VERSION."""
    from serve.workspace import Workspace  # noqa: PLC0415

    with Workspace(workspace) as opened:
        version = opened.models.get(ref)
        label = f"{version.name}:{version.version}"
        if ":" not in ref:
            raise click.UsageError(f"Say which version: '{label}' is the newest.")
        if not dry_run:
            if not yes and not as_json and click.get_text_stream("stdin").isatty():
                click.confirm(f"Delete {label}?", abort=True, err=True)
            opened.models.delete(ref)
    document = {"name": version.name, "version": version.version, "deleted": not dry_run}
    if dry_run:
        note("Nothing was changed.")
    print_out(document, f"{'Would delete' if dry_run else 'Deleted'} {label}.", as_json=as_json)
