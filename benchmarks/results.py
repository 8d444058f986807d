"""Rows of results: printed as a table, written as JSON."""

from __future__ import annotations

import json
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
    missing: dict[str, str] = field(default_factory=dict)
    notes: str = ""


def versions(*distributions: str) -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("fieldpost", *distributions)}
    cores = {"cores": str(os.cpu_count())}
    return {"python": platform.python_version(), **cores, **found}


def write(name: str, rows: list[Row], known: dict[str, str]) -> None:
    """Writes `results/NAME.json`; rows of an earlier run that were not measured anew stay."""
    path = FOLDER / f"{name}.json"
    new = {row.work: asdict(row) | {"versions": known} for row in rows}
    old: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    document = [new.pop(row["work"], row) for row in old] + list(new.values())
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


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
    print(f"\n{row.work} ({row.unit}); at least as good as: {row.target}: {mark}")
    print(f"  {'ours':<28} {row.ours:>12.5g}")
    for peer, figure in row.peers.items():
        print(f"  {peer:<28} {figure:>12.5g}   ours / this {row.ours / figure:8.3f}")
    for peer, reason in row.missing.items():
        print(f"  {peer:<28} not measured: {reason}")
    if row.notes:
        print(f"  {row.notes}")
