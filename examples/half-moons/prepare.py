"""Splits the data as the library's notebook does.

Usage: python prepare.py half-moons.csv FOLDER
"""

import csv
import json
import sys
from pathlib import Path


def main(data: Path, folder: Path) -> None:
    with data.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for part, name in (("train", "train.csv"), ("test", "test.csv")):
        rows = [line for line in lines if line["split"] == part]
        text = "".join(f"{row['x']},{row['y']},{row['label']}\n" for row in rows)
        (folder / name).write_text("x,y,label\n" + text)
    held_out = [line for line in lines if line["split"] != "train"]
    request = {"data": [[float(line["x"]), float(line["y"])] for line in held_out]}
    (folder / "request.json").write_text(json.dumps(request))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
