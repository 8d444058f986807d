"""The time of a scoring script's `run` where nothing else runs in its process.

    AZUREML_MODEL_DIR=FOLDER python -m benchmarks.run_alone

Inside a server the clock also counts what other threads do meanwhile, so this is what a server's
answer is compared with. Prints the median in seconds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import on_server_core
from benchmarks.payloads import score_ask
from benchmarks.venvs import REPOSITORY

_CALLS = 3000


def measure(model: Path) -> float:
    """Runs this module on the server's core."""
    done = subprocess.run(
        on_server_core([sys.executable, "-m", "benchmarks.run_alone"]),
        env=os.environ | {"AZUREML_MODEL_DIR": str(model.parent)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    from benchmarks.peers import script

    script.init()
    body = score_ask().body.decode()
    times = []
    for _ in range(_CALLS):
        begun = time.perf_counter()
        script.run(body)
        times.append(time.perf_counter() - begun)
    print(statistics.median(times))


if __name__ == "__main__":
    main()
