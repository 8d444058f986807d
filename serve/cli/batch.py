"""The commands `fieldpost batch …`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from scoring.commands.output import changes, common, fields, note, pairs, table
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from scoring.batch.records import Plan, Summary
    from serve.batch.local import Follower
    from serve.batch.runs import Batch, Record, View


@click.command(help="Score a dataset: one result for each row.")
@click.argument("model", metavar="PACKAGE|MODEL")
@click.argument("source", metavar="INPUT")
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--format",
    "input_format",
    type=click.Choice(["parquet", "csv", "jsonl"]),
    help="Of INPUT. Default: told by the names of the files.",
)
@click.option(
    "--output-format",
    type=click.Choice(["parquet", "csv", "jsonl"]),
    help="Of OUTPUT. Default: told by its name, else that of INPUT.",
)
@click.option(
    "--columns", metavar="A,B", help="Columns for the model, in its order. Default: by their names."
)
@click.option("--keep", metavar="A,B", help="Columns of INPUT that stand in OUTPUT, too.")
@click.option("--prefix", default="", metavar="TEXT", help="Before the names of the answers.")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip", "null"]),
    default="fail",
    show_default=True,
    help="What becomes of a row that the model does not take.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1000),
    help="Processes, or pods at once. Default: one for each core, 2 pods.",
)
@click.option(
    "--shard-rows",
    default=100_000,
    show_default=True,
    type=click.IntRange(1),
    help="Rows that are written, and tried again, together.",
)
@click.option(
    "--call-rows",
    default=1000,
    show_default=True,
    type=click.IntRange(1),
    help="Rows that the model gets at once.",
)
@click.option(
    "--attempts",
    type=click.IntRange(1, 100),
    help="For one shard (of a job: for one of its tasks). Default: 4; of a job, 10.",
)
@click.option("--delimiter", default="", metavar="CHAR", help="Of CSV: ',', ';', 'tab'.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of text.")
@click.option(
    "--body",
    type=click.Choice(["rows", "records", "split"]),
    default="rows",
    show_default=True,
    help="What a script gets.",
)
@click.option("--body-key", default="data", show_default=True, help="Where a script looks for it.")
@click.option("--overwrite", is_flag=True, help="Throw away what is in the place of OUTPUT.")
@click.option(
    "--target",
    type=click.Choice(["local", "kubernetes"]),
    default="local",
    show_default=True,
    help="Where it runs. A cluster's pods have to see INPUT and OUTPUT.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="env.NAME=VALUE, and what a job takes; may be repeated.",
)
@click.option("--trust-pickle", is_flag=True, help="Load a pickle, which can run any code.")
@click.option(
    "--trust-type", "trusted_types", multiple=True, metavar="TYPE", help="A type for skops files."
)
@click.option("--detach", is_flag=True, help="Of a job: do not wait for its end.")
@changes
@common
def score(
    model: str,
    source: str,
    output: str,
    columns: str | None,
    keep: str | None,
    workers: int | None,
    attempts: int | None,
    overwrite: bool,
    target: str,
    settings: tuple[str, ...],
    trust_pickle: bool,
    trusted_types: tuple[str, ...],
    detach: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
    **options: Any,
) -> int | None:
    """Scores INPUT with MODEL and writes OUTPUT; called again, it goes on where it ended."""
    chosen = {name: value for name, value in options.items() if value is not None}
    chosen |= {"columns": _names(columns), "keep": _names(keep)}
    given = pairs(settings, "--set")
    with _opened(workspace) as batch:
        if target == "kubernetes":
            _require_none_of_here(overwrite=overwrite, trust=trust_pickle or bool(trusted_types))
            if workers is not None:
                given.setdefault("workers", str(workers))
            if attempts is not None:
                given.setdefault("attempts", str(attempts))
            return _job(batch, (model, source, output), given, chosen, dry_run, detach, as_json)
        environment = _environment(given, detach)
        trust: dict[str, Any] = {"trust_pickle": trust_pickle, "trusted_types": trusted_types}
        if dry_run:
            _show_plan(
                batch.plan(model, source, output, environment=environment, **trust, **chosen),
                as_json,
            )
            return None
        with _following(as_json) as follower:
            summary = batch.score(
                model,
                source,
                output,
                workers=workers or 0,
                attempts=attempts or 4,
                overwrite=overwrite,
                environment=environment,
                follower=follower,
                **trust,
                **chosen,
            )
    print_out(summary, _sentence(summary), as_json=as_json)
    return None


def _names(text: str | None) -> tuple[str, ...]:
    """Names between commas; one with a comma in it stands in quotation marks, as in CSV."""
    if not text:
        return ()
    import csv

    return tuple(next(csv.reader([text], skipinitialspace=True)))


def _require_none_of_here(*, overwrite: bool, trust: bool) -> None:
    """Refuses what a job would not heed."""
    from scoring.errors import UsageError

    if overwrite:
        raise UsageError(
            "--overwrite is for runs on this machine.",
            hint="Choose another OUTPUT: pods cannot tell what they may throw away.",
        )
    if trust:
        raise UsageError(
            "--trust-pickle and --trust-type are for models; a job runs a package.",
            hint="Say it when the model is registered.",
        )


def _environment(settings: dict[str, str], detach: bool) -> dict[str, str]:
    """Variables for a script: all that `--set` takes for a run on this machine."""
    from scoring.errors import UsageError

    others = [name for name in settings if not name.startswith("env.")]
    if others or detach:
        raise UsageError(
            f"{others[0] if others else '--detach'} is for jobs of a cluster.",
            hint="Leave it out, or give --target kubernetes; here --set takes env.NAME=value.",
        )
    return {name.removeprefix("env."): text for name, text in settings.items()}


@contextmanager
def _opened(workspace: str | None) -> Iterator[Batch]:
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        yield opened.batch


@contextmanager
def _following(as_json: bool) -> Iterator[Follower]:
    from serve.batch.progress import Bar, Sentences

    if as_json or not sys.stderr.isatty():
        yield Sentences(note)
        return
    with Bar() as bar:
        yield bar


def _sentence(summary: Summary) -> str:
    rejected = f", {summary.rejected} rejected (see {summary.rejects})" if summary.rejected else ""
    resumed = f"; {summary.resumed} shards had been scored before" if summary.resumed else ""
    return (
        f"{summary.written} rows in {summary.output}, of {summary.rows} read{rejected}, "
        f"{summary.shards} shards{resumed}, {summary.seconds:.1f} s"
    )


def _show_plan(plan: Plan, as_json: bool) -> None:
    shown = fields(
        [
            ("files", len(plan.sources)),
            ("shards", len(plan.shards)),
            ("format", plan.format),
            ("model gets", ", ".join(plan.inputs)),
            ("kept", ", ".join(each.name for each in plan.kept)),
            ("answers", ", ".join(each.name for each in plan.answers)),
        ]
    )
    print_out(plan, shown, as_json=as_json)


def _job(
    batch: Batch,
    places: tuple[str, str, str],
    settings: dict[str, str],
    options: dict[str, Any],
    dry_run: bool,
    detach: bool,
    as_json: bool,
) -> int | None:
    record, objects = batch.submit(*places, settings=settings, dry_run=dry_run, **options)
    if dry_run:
        from scoring.commands.output import write_line
        from serve.batch.kubernetes import as_yaml

        if as_json:
            print_out({"objects": objects}, "", as_json=True)
        else:
            write_line(as_yaml(objects).rstrip())
        return None
    note(f"The job {record.name} is with the cluster")
    view = batch.show(record.name) if detach else _followed(batch, record, as_json)
    print_out(view, _fields(view), as_json=as_json)
    return 0 if detach or view.state == "finished" else 1


def _followed(batch: Batch, record: Record, as_json: bool) -> View:
    from serve.batch import kubernetes

    with _following(as_json) as follower:
        kubernetes.follow(record.name, record.settings, follower)
    return batch.show(record.name)


def _fields(view: View) -> str:
    return fields(
        [
            ("name", view.name),
            ("model", view.model),
            ("target", view.target),
            ("state", view.state),
            ("output", view.output),
            ("shards", f"{view.done} of {view.shards}" if view.shards else ""),
            ("rows", view.rows or ""),
            ("rejected", view.rejected or ""),
            ("rejects", view.rejects),
            ("note", view.note),
        ]
    )


@click.command("list", help="List batch runs as they are.")
@common
def list_runs(as_json: bool, workspace: str | None) -> None:
    """Lists the runs of the workspace, the newest first."""
    with _opened(workspace) as batch:
        views = batch.list()
    rows = [
        (v.name, v.model, v.target, v.state, f"{v.done}/{v.shards}" if v.shards else "", v.output)
        for v in views
    ]
    headings = ("NAME", "MODEL", "TARGET", "STATE", "SHARDS", "OUTPUT")
    empty = "No batch runs: 'fieldpost batch score PACKAGE INPUT OUTPUT'."
    print_out(views, table(headings, rows) if rows else empty, as_json=as_json)


@click.command(help="Show how far a batch run is.")
@click.argument("name", metavar="NAME|OUTPUT")
@common
def show(name: str, as_json: bool, workspace: str | None) -> None:
    """Shows a run, found by its name or its output."""
    with _opened(workspace) as batch:
        view = batch.show(name)
    print_out(view, _fields(view), as_json=as_json)


@click.command(help="End a batch run; it can be gone on with.")
@click.argument("name", metavar="NAME|OUTPUT")
@changes
@common
def cancel(name: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Ends a run; what it has scored stays."""
    with _opened(workspace) as batch:
        view = batch.show(name) if dry_run else batch.cancel(name)
    text = f"{view.name} is {view.state}"
    if dry_run:
        text += ", and would be ended" if view.state == "running" else ": there is nothing to end"
    print_out(view, text, as_json=as_json)
