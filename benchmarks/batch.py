"""Batch scoring beside pandas and scikit-learn's own `predict`, row by row the same answers.

`python -m benchmarks.batch`; both read CSV, score, and write CSV, from the start of a process to
its end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.models import make_iris
from benchmarks.results import Row, report

ROWS = 1_000_000
_RUNS = 3
_COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
PANDAS = """
import sys
import joblib
import pandas as pd
source, out, model, columns = sys.argv[1:]
model = joblib.load(model)
names = columns.split(",")
first = True
for part in pd.read_csv(source, chunksize=100_000):
    part["prediction"] = model.predict(part[names].to_numpy())
    chances = model.predict_proba(part[names].to_numpy())
    for number in range(chances.shape[1]):
        part[f"probability_{number}"] = chances[:, number]
    part.drop(columns=names).to_csv(out, index=False, mode="w" if first else "a", header=first)
    first = False
"""


def dataset(path: Path, rows: int) -> None:
    """Flowers that nobody has seen, with a number each."""
    chance = np.random.default_rng(0)
    values = chance.uniform(0.1, 8.0, (rows, len(_COLUMNS))).round(4)
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(("id", *_COLUMNS)) + "\n")
        for number, row in enumerate(values.tolist()):
            file.write(f"{number},{','.join(map(str, row))}\n")


def fitted(folder: Path) -> Path:
    """The model of `make_iris` once more, as scikit-learn has it."""
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    inputs, labels = load_iris(return_X_y=True)
    path = folder / "iris.joblib"
    joblib.dump(LogisticRegression(max_iter=1000).fit(inputs, labels), path)
    return path


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of a whole process."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | environment)
    return time.perf_counter() - begun


def measure(folder: Path, rows: int, workers: int) -> Row:
    """Rows per second of both, the best of several runs in turn."""
    source, model, original = folder / "rows.csv", make_iris(folder), fitted(folder)
    dataset(source, rows)
    environment = {"FIELDPOST_WORKSPACE": str(folder / "ws")}
    ours = [
        *(str(Path(sys.executable).parent / "fieldpost"), "batch", "score", str(model)),
        *(str(source), str(folder / "ours.csv"), "--columns", ",".join(_COLUMNS)),
        *("--keep", "id", "--workers", str(workers), "--overwrite"),
    ]
    peer = [
        *(sys.executable, "-c", PANDAS, str(source), str(folder / "pandas.csv")),
        *(str(original), ",".join(_COLUMNS)),
    ]
    pairs = [(timed(ours, environment), timed(peer, {})) for _ in range(_RUNS)]
    mine, theirs = (rows / min(column) for column in zip(*pairs, strict=True))
    row = Row(
        f"CSV to CSV, {rows} rows of four numbers, {workers} workers",
        "rows/s",
        mine,
        "none",
        True,
        {"pandas and scikit-learn": theirs},
        notes="whole processes; ours checks each cell, and can be killed and gone on with",
    )
    row.ratio = mine / theirs
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--dry", action="store_true", help="write no results")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        measured = []
        for workers in sorted({1, cores}):
            place = Path(folder, str(workers))
            place.mkdir()
            measured.append(measure(place, given.rows, workers))
    if given.dry or given.rows != ROWS:
        print(msgspec.json.format(msgspec.json.encode(measured)).decode())
        return
    report("batch", measured, "pandas", "scikit-learn", "onnxruntime", "numpy")


if __name__ == "__main__":
    main()
