"""Circuits from whatever file they are in, and estimators made of them again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring.quantum import document
from scoring.quantum.circuit import Circuit, Model

if TYPE_CHECKING:
    from scoring.quantum.classifier import SequentialClassifier

QASM_SUFFIXES = (".qasm", ".qasm3")


def load(path: Path) -> Model:
    """Reads a circuit's own file, OpenQASM 3 (by its ending), or a compiled circuit.

    Raises:
        ModelFileError: It cannot be read, or holds no circuit.
    """
    path = Path(path)
    if path.suffix.lower() in QASM_SUFFIXES:
        from scoring.quantum import qasm  # noqa: PLC0415 - late: rarely needed

        return qasm.load(path)
    if path.suffix.lower() == ".onnx":
        from scoring.quantum.pure import from_onnx  # noqa: PLC0415 - late: rarely needed

        return from_onnx(path)
    return document.load(path)


def circuits_of(model: Model) -> tuple[Circuit, ...]:
    """The circuits of a model: several where each tells one class from the rest."""
    return (model,) if isinstance(model, Circuit) else model.circuits


def estimator(model: Model) -> SequentialClassifier:
    """A fitted estimator of a circuit: for evaluating it, or for a pipeline.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    import numpy as np  # noqa: PLC0415 - reading a circuit needs none of this

    from scoring.quantum.classifier import SequentialClassifier  # noqa: PLC0415

    found: Any = SequentialClassifier()
    found.model_ = model
    found.classes_ = np.asarray(model.classes)
    found.n_features_in_ = circuits_of(model)[0].encoding.features
    found.n_iter_ = 1
    fitted: SequentialClassifier = found
    return fitted
