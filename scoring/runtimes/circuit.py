"""Quantum circuits by their state vectors, in numpy alone: for those that have no compiled form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.quantum import document, simulate

if TYPE_CHECKING:
    from pathlib import Path

    from scoring.bundle import Bundle
    from scoring.quantum.circuit import Model
    from scoring.runtimes.base import Arrays
    from scoring.schema import ModelSchema


class CircuitPredictor:
    """Simulates a circuit for each batch; may run on several threads at once."""

    thread_safe = True

    def __init__(self, model: Model, schema: ModelSchema) -> None:
        self.schema = schema
        self.model = model
        self._classes = np.array(
            model.classes, dtype=object if isinstance(model.classes[0], str) else np.int64
        )

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """See `scoring.runtimes.base.Predictor`."""
        rows = inputs[self.schema.inputs[0].name]
        probabilities = simulate.class_probabilities(self.model, rows)
        return {
            "predictions": self._classes[probabilities.argmax(axis=1)],
            "probabilities": probabilities,
        }


def load(path: Path, bundle: Bundle) -> CircuitPredictor:
    """Loads a circuit's file.

    Raises:
        ModelFileError: The file is missing, broken or of another version.
    """
    from scoring.quantum.describing import describe  # noqa: PLC0415 - packages carry their schema

    model = document.load(path)
    return CircuitPredictor(model, bundle.schema or describe(model))
