"""What every runtime offers, and the table that finds one by name, imported late."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from scoring.errors import CorruptModelError

if TYPE_CHECKING:
    from pathlib import Path

    from scoring.bundle import Bundle
    from scoring.schema import ModelSchema

Arrays = Mapping[str, NDArray[Any]]

_MODULES = {
    "onnx": "scoring.runtimes.onnx",
    "sklearn": "scoring.runtimes.sklearn",
    "xgboost": "scoring.runtimes.xgboost",
    "lightgbm": "scoring.runtimes.lightgbm",
    "torch-export": "scoring.runtimes.torch",
    "torchscript": "scoring.runtimes.torch",
    "keras": "scoring.runtimes.keras",
    "circuit": "scoring.runtimes.circuit",
}


class Predictor(Protocol):
    """A loaded model.

    Attributes:
        schema: What it takes and answers. Inputs given to `predict` have been checked against it.
        thread_safe: Whether `predict` may run on several threads at once.
    """

    schema: ModelSchema
    thread_safe: bool

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """Answers one batch.

        Args:
            inputs: One array for each input of the schema, of its dtype and rank; `string` inputs
                are object arrays of `str` (or None where missing values are allowed).

        Returns:
            One array for each output, in the schema's order; for `map` outputs a list of dicts.

        Raises:
            InputError: The model refuses the values, such as a category that it does not know.
            ScoringFailedError: The model failed; the message carries its own reason.
        """
        ...


class RuntimeModule(Protocol):
    """What a module in `scoring.runtimes` offers to this table."""

    def load(self, path: Path, bundle: Bundle) -> Predictor:
        """Loads the model file; raises a `ModelFileError` that says what is wrong with it."""
        ...


def load(root: Path, bundle: Bundle) -> Predictor:
    """Loads the model of a package with the runtime that its description names.

    Raises:
        ModelFileError: The file is missing, corrupt, untrusted, or needs a package that is absent.
    """
    module_name = _MODULES.get(bundle.runtime)
    if module_name is None:
        raise CorruptModelError(f"Unknown runtime {bundle.runtime!r} in the package description.")
    module = cast("RuntimeModule", import_module(module_name))
    return module.load(root / "model" / bundle.model_path, bundle)


NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
} | {"string": np.dtype(object)}

MISSING_STRING = "\ufdd0"
"""What a missing string is to a compiled graph, as ONNX has no null: a code point that Unicode
keeps for internal use, so that no text holds it."""
