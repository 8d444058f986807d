"""Trains a pipeline on a table with string columns and missing values.

Usage: python train.py FOLDER, which then holds penguins.skops, sample.csv and held-out.json.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
WORDS = ["island", "sex"]


def load() -> tuple[pd.DataFrame, pd.Series]:
    table = pd.read_csv(Path(__file__).parent / "penguins.csv", keep_default_na=True)
    table = table.assign(sex=table["sex"].fillna("unknown"))
    return table[NUMBERS + WORDS].astype(dict.fromkeys(NUMBERS, "float64")), table["species"]


def main(folder: Path) -> None:
    x, y = load()
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0, stratify=y)
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer(
        [("numbers", numbers, NUMBERS), ("words", OneHotEncoder(handle_unknown="ignore"), WORDS)]
    )
    pipeline = make_pipeline(columns, RandomForestClassifier(n_estimators=50, random_state=0))
    pipeline.fit(x_train, y_train)
    skops.io.dump(pipeline, folder / "penguins.skops")
    x_train.head(20).to_csv(folder / "sample.csv", index=False)
    # JSON has no NaN: a missing value travels as null.
    rows = json.loads(x_test.to_json(orient="split"))
    (folder / "held-out.json").write_text(json.dumps(rows))
    (folder / "expected.json").write_text(json.dumps(pipeline.predict(x_test).tolist()))
    print(f"accuracy in process: {pipeline.score(x_test, y_test):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
