"""Trains two readers of digits, the second a better one, and keeps what the cameras will see.

Usage: python train.py FOLDER
"""

import json
import sys
from pathlib import Path

import skops.io
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


def main(folder: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    seen, unseen, known, wanted = train_test_split(
        images, labels, test_size=300, random_state=0, stratify=labels
    )
    first = LogisticRegression(max_iter=2000).fit(seen[:60], known[:60])
    second = ExtraTreesClassifier(60, random_state=0).fit(seen, known)
    skops.io.dump(first, folder / "first.skops")
    skops.io.dump(second, folder / "second.skops")
    (folder / "images.json").write_text(json.dumps({"data": unseen.tolist()}))
    (folder / "labels.json").write_text(json.dumps(wanted.tolist()))
    for name, model in (("first", first), ("second", second)):
        right = round(len(wanted) * float(model.score(unseen, wanted)))
        (folder / f"{name}.json").write_text(json.dumps(right))
        print(f"{name}: {right} of {len(wanted)} right in process")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
