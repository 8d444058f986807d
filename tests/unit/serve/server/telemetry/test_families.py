"""The table of metrics, and the page that shows it."""

from __future__ import annotations

from pathlib import Path

from serve.server.telemetry import families as f

PAGE = Path(__file__).parents[5] / "docs" / "reference" / "metrics.md"


def test_every_family_has_its_own_name() -> None:
    names = [family.name for family in (*f.COUNTED, *f.COMPUTED)]
    assert len(names) == len(set(names))


def test_the_page_of_metrics_says_what_the_table_says() -> None:
    rows = [
        f"| `{family.name}{'_total' * (family.kind == 'counter')}` | {family.kind} |"
        f" {', '.join(family.labels)} | {family.help.removesuffix('.')} |".replace("|  |", "| |")
        for family in (*f.COUNTED, *f.COMPUTED)
    ]
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert shown == rows
