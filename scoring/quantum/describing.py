"""What circuits take and answer, as a schema. Without numpy."""

from __future__ import annotations

from scoring.quantum.circuit import Circuit, Model
from scoring.quantum.document import digest
from scoring.schema import CIRCUIT_NOTE, DType, ModelSchema, TensorSpec


def describe(model: Model) -> ModelSchema:
    """What a circuit takes and answers, under the names that compiled circuits have, too."""
    circuits = circuits_of(model)
    label: DType = "string" if isinstance(model.classes[0], str) else "int64"
    return ModelSchema(
        inputs=(TensorSpec("X", "float64", (None, circuits[0].encoding.features)),),
        outputs=(
            TensorSpec("predictions", label, (None,)),
            TensorSpec("probabilities", "float64", (None, len(model.classes))),
        ),
        classes=tuple(model.classes),
        notes={CIRCUIT_NOTE: digest(model)},
    )


def circuits_of(model: Model) -> tuple[Circuit, ...]:
    """The circuits of a model: several where each tells one class from the rest."""
    return (model,) if isinstance(model, Circuit) else model.circuits
