"""The process that times PennyLane, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from benchmarks import venvs
from scoring.quantum import document
from scoring.quantum.circuit import Circuit

NAME = "pennylane"
TAPES = "lightning, prebuilt tapes"
QNODE = "lightning, QNodes"
DISTRIBUTIONS = ("pennylane", "pennylane-lightning", "numpy")
_SCRIPT = venvs.PINS / "pennylane_circuits.py"


class PennyLane:
    """Asks the peer's process, started once: its imports take seconds.

    Args:
        folder: Where circuits and states are handed over.
    """

    def __init__(self, folder: Path) -> None:
        venvs.ensure(NAME)
        self._folder = folder
        self._process = subprocess.Popen(
            [str(venvs.python(NAME)), str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Its threads would else spin for each other, which a shared machine punishes.
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        )

    def rate(self, work: str, circuit: Circuit, states: NDArray[np.float64]) -> float:
        """Samples in a second; `work` is one of the script's."""
        document.save(circuit, self._folder / "asked.circuit.json")
        np.save(self._folder / "asked.npy", states)
        asked = {
            "work": work,
            "circuit": str(self._folder / "asked.circuit.json"),
            "states": str(self._folder / "asked.npy"),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"PennyLane's process ended with {self._process.wait()}")
        found: float = json.loads(answer)["samples_per_s"]
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
