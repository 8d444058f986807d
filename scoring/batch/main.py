"""Started inside a package: `python -I -S ROOT/runtime/scoring/batch/main.py ROOT [ARGUMENT ...]`.

Builds `sys.path` as `scoring.boot` does for the server, and runs the model behind pipes (no more
arguments, or a number of threads) or a pod of a job (`pod`).
"""

from __future__ import annotations

import sys
from pathlib import Path

MODULES = {"pod": "scoring.batch.pod"}
WORKER = "scoring.batch.worker"


def main(arguments: list[str]) -> None:
    """Runs what the arguments name."""
    if not arguments:
        raise SystemExit("usage: python -I -S ROOT/runtime/scoring/batch/main.py ROOT [pod]")
    root = Path(arguments[0]).absolute()
    sys.path.append(str((root / "runtime").resolve()))
    from scoring import boot  # noqa: PLC0415 - not importable before

    boot.main(arguments, MODULES.get("".join(arguments[1:2]), WORKER))


if __name__ == "__main__":
    main(sys.argv[1:])
