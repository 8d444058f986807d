"""Circuit-centric quantum classifiers: trained here, compiled, served like any other model.

`circuit` holds a circuit as data (no numpy), `document` reads and writes it, `layers` builds it,
`encoding` turns features into amplitudes, `simulate` answers, `gradients` and `training` learn,
`classifier` is the scikit-learn face of it all. Importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoring.quantum.circuit import Circuit, Gate, OneVersusRest
    from scoring.quantum.classifier import SequentialClassifier

_HOMES = {
    "Circuit": "scoring.quantum.circuit",
    "Gate": "scoring.quantum.circuit",
    "OneVersusRest": "scoring.quantum.circuit",
    "SequentialClassifier": "scoring.quantum.classifier",
}


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


__all__ = ["Circuit", "Gate", "OneVersusRest", "SequentialClassifier"]
