"""Small models of several kinds, whose answers everyone can compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.schema import ModelSchema, TensorSpec

if TYPE_CHECKING:
    from scoring.runtimes.base import Arrays


class Classifier:
    """Tells whether the first of two columns is the larger one."""

    schema = ModelSchema(
        inputs=(TensorSpec("x", "float32", (None, 2)),),
        outputs=(
            TensorSpec("label", "string", (None,)),
            TensorSpec("probabilities", "float32", (None, 2)),
        ),
        features=("left", "right"),
        classes=("left", "right"),
        example={"data": [[1.0, 2.0]]},
    )
    thread_safe = True

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        left = inputs["x"][:, 0] > inputs["x"][:, 1]
        labels = np.where(left, "left", "right").astype(object)
        chances = np.stack([left, ~left], axis=1).astype(np.float32)
        return {"label": labels, "probabilities": chances}


class Columns:
    """Takes columns of every kind, and answers with what it saw of each row."""

    schema = ModelSchema(
        inputs=(
            TensorSpec("name", "string", (None, 1)),
            TensorSpec("note", "string", (None, 1), missing=True),
            TensorSpec("count", "int64", (None, 1)),
            TensorSpec("size", "float64", (None, 1), missing=True),
            TensorSpec("known", "bool", (None, 1)),
        ),
        outputs=(TensorSpec("seen", "string", (None,)),),
        layout="table",
    )
    thread_safe = True

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        rows = zip(*(inputs[spec.name][:, 0] for spec in self.schema.inputs), strict=True)
        return {"seen": np.array(["|".join(map(str, row)) for row in rows], dtype=object)}
