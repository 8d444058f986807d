"""The server beside its peers, in one run: the table of every figure that it is held to.

    python -m benchmarks.server [--only ROW]... [--quick] [--minutes M]

Each server runs on one core, the load on another. All of a row run at once and are measured in
turn, three times; the best of each counts, because what else the machine does only takes away.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import load, results
from benchmarks.features import Features
from benchmarks.machine import PINNED, leave_server_core
from benchmarks.models import make_iris, make_pixels
from benchmarks.results import Row
from benchmarks.rows import ROWS, Bench, Pace
from benchmarks.running import Site


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server")
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds")
    parser.add_argument("--minutes", type=float, default=1.0, help="of the stress row (1)")
    return parser.parse_args(arguments)


def measure(bench: Bench, names: Sequence[str]) -> list[Row]:
    """Each row is shown and written as soon as it is there."""
    rows: list[Row] = []
    for name in names:
        make: Callable[[Bench], list[Row]] = ROWS[name]
        for row in make(bench):
            results.print_row(row)
            sys.stdout.flush()
            rows.append(row)
        results.write("server", rows, bench.versions())
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    load.install()
    leave_server_core()
    if not PINNED:
        print("only one core here: server and load share it, and the figures say little")
    pace = Pace(rounds=2, seconds=1.0) if given.quick else Pace()
    with tempfile.TemporaryDirectory(prefix="fieldpost-bench-") as name:
        folder = Path(name)
        site = Site(folder, {"iris": make_iris(folder), "pixels": make_pixels(folder)})
        features = Features.make(folder)
        try:
            rows = measure(Bench(site, features, pace, given.minutes), given.only or list(ROWS))
        finally:
            features.close()
    missed = [row.work for row in rows if not row.reached]
    print(
        f"\n{len(rows) - len(missed)} of {len(rows)} reached"
        + "".join(f"\n  missed: {work}" for work in missed)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
