"""Rows of results: printed as a table, written as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


@dataclass
class Row:
    """One measurement.

    Attributes:
        work: What was done.
        unit: Of the figures; `s`, `MiB`, `requests/s`.
        ours: Our figure.
        target: What it has to reach, as a text.
        reached: Whether it does.
        peers: Name to figure, of the same run.
        ratio: Ours to the first peer's; None without a peer.
        processor: Ours and the peers' figures by the servers' own processor time instead of the
            clock: what the machine gave to others does not count in these.
        missing: Name to the reason, of peers that could not be measured.
        notes: What has to be known to read the figures.
    """

    work: str
    unit: str
    ours: float
    target: str
    reached: bool
    peers: dict[str, float] = field(default_factory=dict)
    ratio: float | None = None
    processor: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: str = ""


def versions(*distributions: str) -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("fieldpost", *distributions)}
    cores = {"cores": str(os.cpu_count())}
    return {"python": platform.python_version(), **cores, **found}


def write(name: str, rows: list[Row], known: dict[str, str]) -> None:
    """Writes `results/NAME.json`; rows of an earlier run that were not measured anew stay."""
    path = FOLDER / f"{name}.json"
    new = {row.work: _document(row) | {"versions": known} for row in rows}
    old: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    document = [new.pop(row["work"], row) for row in old] + list(new.values())
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def _document(row: Row) -> dict[str, Any]:
    """The row as JSON knows it: a figure that there is not is null."""
    document = asdict(row)
    for name in ("ours", "ratio"):
        if document[name] is not None and not math.isfinite(document[name]):
            document[name] = None
    return document


def report(name: str, rows: list[Row], *distributions: str) -> None:
    """Prints the table and writes `results/NAME.json` anew."""
    (FOLDER / f"{name}.json").unlink(missing_ok=True)
    write(name, rows, versions(*distributions))
    width = max(len(row.work) for row in rows)
    print(f"{'work':{width}}  {'ours':>12}  {'peers':<34}  {'ratio':>6}  target")
    for row in rows:
        peers = ", ".join(f"{peer} {figure:.4g}" for peer, figure in row.peers.items()) or "-"
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
        mark = "reached" if row.reached else "MISSED"
        ours = f"{row.ours:.4g} {row.unit}"
        print(f"{row.work:{width}}  {ours:>12}  {peers:<34}  {ratio:>6}  {row.target}: {mark}")


def print_row(row: Row) -> None:
    """One row as a block: each peer on its own line."""
    mark = "reached" if row.reached else "MISSED"
    unit = f" ({row.unit})" if row.unit else ""
    print(f"\n{row.work}{unit}; target: {row.target}: {mark}")
    if row.processor:
        print(f"  {'':<28} {'':>12}  {'ratio':>8}    by processor time   ratio")
    for name, figure in {"ours": row.ours, **row.peers}.items():
        ratio = f"{row.ours / figure:8.3f}" if name != "ours" else ""
        print(f"  {name:<28} {figure:>12.5g}  {ratio:>8}{_processor(row, name)}".rstrip())
    for name, reason in row.missing.items():
        print(f"  {name:<28} not measured: {reason}")
    if row.notes:
        print(f"  {row.notes}")


def _processor(row: Row, name: str) -> str:
    """The same by processor time, and the ratio by it."""
    ours, figure = row.processor.get("ours"), row.processor.get(name)
    if ours is None or figure is None:
        return ""
    ratio = f"{ours / figure:8.3f}" if name != "ours" else ""
    return f"    {figure:>18.5g}{ratio}"
