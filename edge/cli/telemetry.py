"""The commands `fieldpost fleet telemetry …`: what devices have told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edge.cli.output import DURATION, ago
from scoring.commands.output import common, table
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from edge.telemetry.store import Store


_CLASSES: Final = ("alarm", "status", "metric", "debug")
_MOST: Final = 100_000


@click.group(help="Ask what devices have told: requests, inputs, resources, alarms.")
def telemetry() -> None:
    """The group."""


@contextmanager
def _store(workspace: str | None) -> Iterator[Store]:
    from edge.telemetry.store import FOLDER, Store
    from edge.workspace import open_workspace

    with open_workspace(workspace) as found, Store(found.folder / FOLDER) as store:
        yield store


@telemetry.command(name="query", help="Ask the table `records` with a SELECT in DuckDB's SQL.")
@click.argument("sql")
@common
def query(sql: str, workspace: str | None, as_json: bool) -> None:
    """Prints what was found."""
    with _store(workspace) as store:
        found = store.query(sql)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    print_out(rows, table(found.columns, found.rows), as_json=as_json)


@telemetry.command(name="list", help="List the newest records.")
@click.option("--device", default="", help="Of this device alone.")
@click.option("--kind", default="", help="Of this kind: requests, inputs, resources, sample, ...")
@click.option(
    "--class", "name", type=click.Choice(_CLASSES), help="Of this class alone. Default: of all."
)
@click.option("--since", type=DURATION, default=0.0, help="Not older than this: 90s, 2h, 1d.")
@click.option(
    "-n", "most", type=click.IntRange(1, _MOST), default=50, show_default=True, help="How many."
)
@common
def list_records(
    device: str,
    kind: str,
    name: str | None,
    since: float,
    most: int,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Prints them, the newest first."""
    import msgspec

    begin = time.time() - since if since else 0.0
    with _store(workspace) as store:
        found = store.records(device=device, kind=kind, name=name or "", since=begin, most=most)
    rows = [
        (each["told_at"][:19], each["device"], each["class"], each["kind"], _short(each["data"]))
        for each in found
    ]
    headings = ("TOLD", "DEVICE", "CLASS", "KIND", "DATA")
    text = table(headings, rows) if rows else "Nothing of that was told."
    print_out(msgspec.to_builtins(found), text, as_json=as_json)


@telemetry.command(name="devices", help="List who tells, and what was lost on the way.")
@common
def devices(workspace: str | None, as_json: bool) -> None:
    """Prints one line for each device."""
    with _store(workspace) as store:
        found = store.inbox.sources()
    rows = [
        (one.device, one.site, one.records, sum(one.dropped.values()), ago(one.seen))
        for one in found
    ]
    headings = ("DEVICE", "SITE", "RECORDS", "DROPPED", "HEARD")
    print_out([one._asdict() for one in found], table(headings, rows), as_json=as_json)


@telemetry.command(name="drift", help="Compare what a module is asked with its training sample.")
@click.argument("module")
@click.option(
    "--sample",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The training sample (csv, json, npy, parquet). Default: the first 1000 rows told.",
)
@click.option("--package", default="", help="Of this package alone, by its digest.")
@click.option("--since", type=DURATION, default=0.0, help="Not older than this: 2h, 1d.")
@common
def drift(
    module: str,
    sample: Path | None,
    package: str,
    since: float,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Prints a line for each column, over the fleet, and one for each device."""
    import msgspec

    from edge.telemetry import reports

    begin = time.time() - since if since else 0.0
    with _store(workspace) as store:
        reference = None
        if sample is not None:
            from scoring.sample import read_sample

            parts = reports.seen(store, module, package=package, since=begin)
            columns = sorted(reports.total(parts).columns, key=_place)
            reference = reports.reference_of(read_sample(sample), columns) if parts else None
        found = reports.drift(store, module, reference=reference, package=package, since=begin)
    rows: list[tuple[object, ...]] = [
        (name, each.verdict, each.psi, "" if each.shift is None else each.shift, each.missing)
        for name, each in found["fleet"].columns.items()
    ]
    rows += [(name, each.verdict, "", "", "") for name, each in found.items()]
    text = table(("COLUMN OR DEVICE", "VERDICT", "PSI", "SHIFT", "MISSING"), rows)
    print_out(msgspec.to_builtins(found), text, as_json=as_json)


def _place(column: str) -> tuple[str, int]:
    """Orders `X[2]` before `X[10]`."""
    name, _, rest = column.partition("[")
    number = rest.removesuffix("]")
    return name, int(number) if number.isdecimal() else -1


def _short(data: Any, most: int = 100) -> str:
    import msgspec

    text = msgspec.json.encode(data).decode()
    return text if len(text) <= most else text[: most - 1] + "\u2026"
