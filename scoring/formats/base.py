"""Values that detection and loading exchange."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scoring.bundle import RuntimeName
from scoring.schema import ModelSchema

if TYPE_CHECKING:
    # It imports numpy, which detecting does not need; no codec ever asks for this annotation.
    from scoring.runtimes.base import Predictor  # noqa: TC004

FormatName = Literal[
    "onnx",
    "sklearn-joblib",
    "sklearn-pickle",
    "sklearn-skops",
    "xgboost",
    "lightgbm",
    "torch-export",
    "torchscript",
    "keras",
    "circuit",
]


class Trust(msgspec.Struct, frozen=True):
    """What the operator (never the file) allows.

    Attributes:
        pickle: Pickles may be loaded although they can run any code.
        types: Further types that skops files may hold, by full name.
    """

    pickle: bool = False
    types: tuple[str, ...] = ()


class Detection(msgspec.Struct, frozen=True):
    """What a look at the bytes says, with no code of the file run and no framework imported.

    Attributes:
        format: The format.
        runtime: The runtime that serves the original.
        path: The model file itself (for a folder, the one found inside).
        made_with: Package name to version, as far as the bytes tell: {"scikit-learn": "1.7.2"}.
        runs_code: Loading it can run code from the file.
    """

    format: FormatName
    runtime: RuntimeName
    path: Path
    made_with: dict[str, str] = {}
    runs_code: bool = False


class LoadedModel(msgspec.Struct, frozen=True):
    """An original model, loaded in its own framework.

    Attributes:
        detection: What it was told to be.
        model: The framework's object (estimator, Booster, module ...).
        schema: Its inputs and outputs; the example may be missing.
        predictor: Answers with the original framework: the reference for the compiled form.
        requirements: What it needs to run natively, pinned: ("scikit-learn==1.9.1", ...).
    """

    detection: Detection
    model: Any
    schema: ModelSchema
    predictor: Predictor
    requirements: tuple[str, ...]
