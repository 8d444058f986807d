"""Rows of results: printed as a table, written as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

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
    """

    work: str
    unit: str
    ours: float
    target: str
    reached: bool
    peers: dict[str, float] = field(default_factory=dict)
    ratio: float | None = None


def versions(*distributions: str) -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("fieldpost", *distributions)}
    cores = {"cores": str(os.cpu_count())}
    return {"python": platform.python_version(), **cores, **found}


def report(name: str, rows: list[Row], *distributions: str) -> None:
    """Prints the table and writes `results/NAME.json`."""
    known = versions(*distributions)
    FOLDER.mkdir(exist_ok=True)
    document = [asdict(row) | {"versions": known} for row in rows]
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    width = max(len(row.work) for row in rows)
    print(f"{'work':{width}}  {'ours':>12}  {'peers':<34}  {'ratio':>6}  target")
    for row in rows:
        peers = ", ".join(f"{peer} {figure:.4g}" for peer, figure in row.peers.items()) or "-"
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
        mark = "reached" if row.reached else "MISSED"
        ours = f"{row.ours:.4g} {row.unit}"
        print(f"{row.work:{width}}  {ours:>12}  {peers:<34}  {ratio:>6}  {row.target}: {mark}")
