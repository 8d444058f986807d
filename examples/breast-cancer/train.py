"""Trains gradient-boosted trees and saves them in XGBoost's own file.

Usage: python train.py FILE.ubj ROUNDS
"""

import json
import sys
from pathlib import Path

import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split


def main(path: Path, rounds: int) -> None:
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0, stratify=y)
    model = xgboost.XGBClassifier(n_estimators=rounds, max_depth=4, random_state=0, n_jobs=1)
    model.fit(x_train, y_train)
    model.save_model(path)
    request = {"data": x_test.to_numpy().tolist()}
    path.with_suffix(".request.json").write_text(json.dumps(request))
    path.with_suffix(".expected.json").write_text(json.dumps(model.predict(x_test).tolist()))
    print(f"accuracy in process with {rounds} rounds: {model.score(x_test, y_test):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
