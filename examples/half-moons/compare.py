"""Compares a deployment's answers with the state vector in this process.

Usage: python compare.py CIRCUIT REQUEST ANSWERS
"""

import json
import sys
from pathlib import Path

import numpy as np

from scoring.quantum import document, simulate


def main(circuit: Path, request: Path, answers: Path) -> None:
    model = document.load(circuit)
    rows = json.loads(request.read_text())["data"]
    answer = json.loads(answers.read_text())
    expected = simulate.class_probabilities(model, rows)
    difference = np.abs(np.array(answer["probabilities"]) - expected).max()
    assert difference < 1e-12, f"the deployment differs by {difference}"
    assert answer["predictions"] == simulate.labels(model, rows).tolist()
    print(f"{len(rows)} answers over HTTP, equal to the state vector within {difference:.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
