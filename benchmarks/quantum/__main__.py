"""Quantum classifiers beside PennyLane, and the figures that Microsoft's library published.

    python -m benchmarks.quantum [--only ROW]... [--rounds N]

Ours and PennyLane's are measured in turn; the best of each counts, because what else the machine
does only takes away.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import results, venvs
from benchmarks.quantum.bench import Bench
from benchmarks.quantum.gradients import gradients
from benchmarks.quantum.http import http
from benchmarks.quantum.inference import compiling, inference, one_row
from benchmarks.quantum.pennylane import DISTRIBUTIONS, NAME, QNODE, TAPES, PennyLane
from benchmarks.quantum.published import half_moons, half_moons_trained, wine
from benchmarks.results import Row

ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "half-moons": half_moons,
    "half-moons-trained": half_moons_trained,
    "wine": wine,
    "gradients": gradients,
    "inference": inference,
    "one-row": one_row,
    "compiling": compiling,
    "http": http,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantum")
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (3)")
    return parser.parse_args(arguments)


def ready(folder: Path, rounds: int) -> Bench:
    """With PennyLane where it can be installed, else with the reason."""
    try:
        return Bench(PennyLane(folder), rounds=rounds)
    except venvs.InstallError as error:
        return Bench(None, dict.fromkeys((TAPES, QNODE), str(error)), rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fieldpost-bench-") as name:
        bench = ready(Path(name), given.rounds)
        try:
            for wanted in given.only or list(ROWS):
                make: Callable[[Bench], list[Row]] = ROWS[wanted]
                for row in make(bench):
                    results.print_row(row)
                    sys.stdout.flush()
                    rows.append(row)
        finally:
            if bench.peer:
                bench.peer.close()
    known = results.versions("numpy", "scipy", "scikit-learn", "onnxruntime")
    peers = {f"peer {each}": found for each, found in venvs.versions(NAME, DISTRIBUTIONS).items()}
    results.write("quantum", rows, known | peers)
    missed = [row.work for row in rows if not row.reached]
    print(
        f"\n{len(rows) - len(missed)} of {len(rows)} reached"
        + "".join(f"\n  missed: {work}" for work in missed)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
