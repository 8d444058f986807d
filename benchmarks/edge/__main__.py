"""What a fleet costs: `python -m benchmarks.edge [--only ROW]... [--quick]`."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import results
from benchmarks.edge import moving, reconnect, restart, rollouts, telemetry
from benchmarks.results import Row
from tests.support.brokers import binary

ROWS: Final[dict[str, Callable[..., list[Row]]]] = {
    "rollout": rollouts.rows,
    "telemetry": telemetry.rows,
    "reconnect": reconnect.rows,
    "bytes": moving.rows,
    "restart": restart.rows,
}


def versions() -> dict[str, str]:
    """Of everything that took part."""
    known = results.versions("paho-mqtt", "msgspec", "cryptography", "zstandard")
    found = binary()
    if found is not None:
        done = subprocess.run([found, "-h"], capture_output=True, text=True, check=False)
        known["mosquitto"] = done.stdout.partition("\n")[0].removeprefix("mosquitto version ")
    return known


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edge")
    parser.add_argument("--only", action="append", choices=ROWS, help="this row; repeatable")
    parser.add_argument("--quick", action="store_true", help="a few devices: no figure counts")
    parser.add_argument("--keep", action="store_true", help="write results/edge.json when quick")
    asked = parser.parse_args()
    if binary() is None:
        parser.exit(1, "mosquitto is not installed: tests/install-services.sh installs it\n")
    known = versions()
    for name in asked.only or ROWS:
        with tempfile.TemporaryDirectory(prefix="fp-edge-", dir="/tmp") as folder:
            found = ROWS[name](Path(folder), quick=asked.quick)
        for row in found:
            results.print_row(row)
        if not asked.quick or asked.keep:
            results.write("edge", found, known)


if __name__ == "__main__":
    main()
