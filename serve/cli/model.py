"""The commands `fieldpost model …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from scoring.commands.output import changes, common, fields, note, pairs, size, table
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from serve.registry.records import ModelDiff, ModelVersion


_NO_MODELS = "No models yet: 'fieldpost model register NAME PATH'."


@click.command(help="Register a model file or folder.")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag; may be repeated.")
@click.option("--description", default="", help="A sentence about this version.")
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="Inputs to compare on and to take the schema from: JSON, CSV, NPY, Parquet.",
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
    from serve.workspace import Workspace

    labels = pairs(tags, "--tag")
    with Workspace(workspace) as opened:
        preparation: dict[str, Any] = {
            "sample": sample,
            "tolerance": tolerance,
            "trust_pickle": trust_pickle,
            "trusted_types": trusted_types,
            "expected_format": expected,
        }
        if dry_run:
            plan = opened.models.plan(name, path, **preparation)
            text = f"Would register {name} ({plan.prepared.format}, {_serving(plan.prepared)})."
            print_out(plan, text, as_json=as_json)
            return
        version = opened.models.register(
            name, path, tags=labels, description=description, **preparation
        )
    text = f"Registered {version.ref} ({version.format}, {_serving(version)})."
    print_out(version, text, as_json=as_json)
    reason = _report(version).get("reason", "")
    if "near the threshold" in reason:  # rows of a circuit: the compiled form may decide otherwise
        click.echo(f"Warning: {reason}", err=True)


def _serving(found: Any) -> str:
    """How a `Prepared` or a `ModelVersion` serves."""
    if found.serves == "compiled":
        return "serves compiled to ONNX, equal to the original"
    reason = _report(found).get("reason", "")
    return "serves the original" + (f": {reason}" if reason else "").rstrip(".")


def _report(found: Any) -> dict[str, Any]:
    """The report of the compilation; empty for a format that is served as it is."""
    return msgspec.to_builtins(found.compilation) or {}


@click.command("list", help="List models and their versions.")
@click.argument("name", required=False)
@click.option("--tag", "tags", multiple=True, metavar="KEY[=VALUE]", help="Only those so tagged.")
@common
def list_models(
    name: str | None, tags: tuple[str, ...], as_json: bool, workspace: str | None
) -> None:
    """Lists versions, newest first."""
    from serve.workspace import Workspace

    wanted: dict[str, str | None] = {}
    for entry in tags:
        key, separator, value = entry.partition("=")
        wanted[key] = value if separator else None
    with Workspace(workspace) as opened:
        versions = opened.models.list(name, tags=wanted)
    rows = [
        (
            version.ref,
            version.format,
            version.serves,
            size(version.size),
            version.created_at[:19].replace("T", " "),
            version.created_by,
            " ".join(f"{key}={value}" for key, value in sorted(version.tags.items())),
        )
        for version in versions
    ]
    headings = ("MODEL", "FORMAT", "SERVES", "SIZE", "CREATED", "BY", "TAGS")
    none = "No model has this name and these tags." if name or tags else _NO_MODELS
    text = table(headings, rows) if rows else none
    print_out(versions, text, as_json=as_json)


@click.command(help="Show all that is known of a version.")
@click.argument("ref")
@common
def show(ref: str, as_json: bool, workspace: str | None) -> None:
    """Shows REF: a name, or NAME:VERSION."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        version = opened.models.get(ref)
        used_by = opened.models.used_by(version)
    document = _builtins(version) | {"used_by": used_by}
    print_out(document, _describe(version, used_by), as_json=as_json)


def _describe(version: ModelVersion, used_by: tuple[str, ...]) -> str:
    schema = msgspec.to_builtins(version.schema) or {}
    commit = version.source_commit and version.source_commit + (
        " (with uncommitted changes)" if version.source_dirty else ""
    )
    return fields(
        [
            ("model", version.ref),
            ("digest", version.digest),
            ("description", version.description),
            ("format", version.format),
            ("made with", ", ".join(f"{k} {v}" for k, v in sorted(version.made_with.items()))),
            ("serves", _describe_serving(version)),
            ("inputs", _describe_tensors(schema, "inputs")),
            ("outputs", _describe_tensors(schema, "outputs")),
            ("classes", ", ".join(map(str, schema.get("classes", ())))),
            ("circuit", schema.get("notes", {}).get("fieldpost.circuit", "")),
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
    report = _report(version)
    reason = report.get("reason", "")
    lines = [f"{version.serves}: {reason}" if reason else version.serves]
    if report.get("rows_compared"):
        lines.append(
            f"compared on {report['rows_compared']} rows: "
            f"{report['label_mismatches']} labels differ, "
            f"largest difference {report['max_difference']:.3g} "
            f"(tolerance {report['tolerance']:g})"
        )
    return "\n".join(lines)


def _describe_tensors(schema: dict[str, Any], side: str) -> str:
    return "\n".join(
        f"{spec['name']}  {spec['dtype']}  ({_shape(spec['shape'])})" + _describe_use(spec)
        for spec in schema.get(side, ())
    )


def _describe_use(spec: dict[str, Any]) -> str:
    if spec.get("unused"):
        return "  not used, may be left out"
    return "  may be missing" if spec.get("missing") else ""


def _shape(shape: list[int | None]) -> str:
    return ", ".join("any" if size is None else str(size) for size in shape)


def _builtins(record: ModelVersion) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(record)
    return document


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
    from serve.workspace import Workspace

    if not tags and not remove:
        raise click.UsageError("Give at least one KEY=VALUE, or --remove KEY.")
    changed = pairs(tags, "KEY=VALUE")
    with Workspace(workspace) as opened:
        version = opened.models.get(ref)
        after = {k: v for k, v in (version.tags | changed).items() if k not in remove}
        if not dry_run:
            version = opened.models.tag(ref, set=changed, remove=list(remove))
            after = version.tags
    text = f"{version.ref} " + " ".join(f"{k}={v}" for k, v in after.items())
    document = {"name": version.name, "version": version.version, "tags": after}
    print_out(document, text, as_json=as_json)


@click.command(help="Compare two versions.")
@click.argument("first")
@click.argument("second")
@common
def diff(first: str, second: str, as_json: bool, workspace: str | None) -> None:
    """Compares FIRST with SECOND."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        result = opened.models.diff(first, second)
    print_out(result, _describe_diff(result), as_json=as_json)


def _describe_diff(result: ModelDiff) -> str:
    if result.identical:
        return f"{result.before} and {result.after} do not differ."
    lines = [f"+ {file.path}  {size(file.size)}" for file in result.files_added]
    lines += [f"- {file.path}  {size(file.size)}" for file in result.files_removed]
    for path, change in result.files_changed.items():
        before, after = change.before, change.after
        lines.append(f"~ {path}  {size(before['size'])} -> {size(after['size'])}")
    for kind in ("fields", "schema", "requirements", "metrics", "tags"):
        for key, change in getattr(result, kind).items():
            lines.append(
                f"~ {kind.rstrip('s')} {key}: {_value(change.before)} -> {_value(change.after)}"
            )
    return "\n".join([f"{result.before} -> {result.after}", *lines])


def _value(value: object) -> str:
    return "nothing" if value is None else str(value)


@click.command(help="Copy a version's files out, checked.")
@click.argument("ref")
@click.argument("destination", type=click.Path(path_type=Path), default=None, required=False)
@click.option("--force", is_flag=True, help="Replace the destination where it exists.")
@common
def download(
    ref: str, destination: Path | None, force: bool, as_json: bool, workspace: str | None
) -> None:
    """Copies the files of REF to DESTINATION (default: a folder NAME-VERSION here)."""
    from serve.workspace import Workspace

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
    count = len(version.files)
    text = f"Wrote {count} {'file' if count == 1 else 'files'} to {target}."
    print_out(document, text, as_json=as_json)


@click.command(help="Delete a version that nothing uses.")
@click.argument("ref")
@click.option("--yes", is_flag=True, help="Do not ask.")
@changes
@common
def delete(ref: str, yes: bool, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Deletes REF, a NAME:VERSION."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        version = opened.models.get(ref)
        label = version.ref
        if ":" not in ref:
            raise click.UsageError(f"Say which version: '{label}' is the newest.")
        if not dry_run:
            if not yes and not as_json and sys.stdin.isatty():
                click.confirm(f"Delete {label}?", abort=True, err=True)
            opened.models.delete(ref)
    document = {"name": version.name, "version": version.version, "deleted": not dry_run}
    if dry_run:
        note("Nothing was changed.")
    print_out(document, f"{'Would delete' if dry_run else 'Deleted'} {label}.", as_json=as_json)
