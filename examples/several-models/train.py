"""Two models of the wine data: one of raw columns, and a better one that scales them first."""

import json
import sys
from pathlib import Path

import skops.io
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

work = Path(sys.argv[1])
shelf = work / "shelf"

x, y = load_wine(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.4, random_state=7)
first = LogisticRegression(C=1e-6).fit(x_train, y_train)
second = make_pipeline(StandardScaler(), LogisticRegression()).fit(x_train, y_train)

(shelf / "wine/1").mkdir(parents=True)
skops.io.dump(first, shelf / "wine/1/model.skops")
skops.io.dump(second, work / "better.skops")
(work / "wine.json").write_text(json.dumps({"data": x_test.tolist()}))
(work / "labels.json").write_text(json.dumps(y_test.tolist()))
(work / "expected.json").write_text(json.dumps(second.predict(x_test).tolist()))

x, y = load_breast_cancer(return_X_y=True)
cancer = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
(shelf / "cancer").mkdir()
skops.io.dump(cancer, shelf / "cancer/model.skops")
(work / "cancer.json").write_text(json.dumps({"data": x[:3].tolist()}))
