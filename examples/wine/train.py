"""Learns to tell three wines apart, chooses by cross-validation, and registers what it chose.

Usage: python train.py REQUEST EXPECTED
"""

import json
import sys
from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scoring.quantum import SequentialClassifier
from serve import Workspace

STRUCTURES = ["local-x local-z cyclic-x local-x", "local-y cyclic-y local-y"]


def main(request: Path, expected: Path) -> None:
    data = load_wine()
    names = data.target_names[data.target]
    x_train, x_test, y_train, y_test = train_test_split(
        data.data, names, test_size=0.2, random_state=0, stratify=names
    )
    learner = SequentialClassifier(
        # States know neither the length of a row nor its sign: a constant gives them a scale.
        encoding="constant:2,1,1",
        optimizer="adam",
        learning_rate=0.1,
        epochs=15,
        starts=1,
        random_state=0,
    )
    search = GridSearchCV(
        make_pipeline(StandardScaler(), learner),
        {"sequentialclassifier__structure": STRUCTURES},
        cv=3,
    ).fit(x_train, y_train)
    best = search.best_estimator_
    print("chosen:", search.best_params_["sequentialclassifier__structure"])
    print(
        f"accuracy: {best.score(x_train, y_train):.3f}, held out {best.score(x_test, y_test):.3f}"
    )
    with Workspace() as workspace:
        version = workspace.models.register("wine", best, sample=x_train[:5])
    print("registered", version.ref)
    request.write_text(json.dumps({"data": x_test.tolist()}))
    answers = {
        "predictions": best.predict(x_test).tolist(),
        "probabilities": best.predict_proba(x_test).tolist(),
    }
    expected.write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
