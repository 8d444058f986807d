"""Trains a ridge regression and saves it as Azure ML's samples do, with joblib.

Usage: python train.py FOLDER
"""

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge


def main(folder: Path) -> None:
    x, y = load_diabetes(return_X_y=True)
    model = Ridge(alpha=0.03).fit(x, y)
    joblib.dump(model, folder / "sklearn_regression_model.pkl")
    print(f"R² on the training data: {model.score(x, y):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
