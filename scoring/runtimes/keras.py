"""Keras models, on whatever backend is installed."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import (
    CorruptModelError,
    MissingDependencyError,
    ModelFileError,
    ModelNotFoundError,
    ScoringFailedError,
    UnsupportedModelError,
)
from scoring.runtimes.base import NUMPY_DTYPES, Arrays
from scoring.runtimes.dependencies import quiet, require
from scoring.runtimes.leaves import leaves
from scoring.runtimes.refusals import is_refusal, refusal

if TYPE_CHECKING:
    from scoring.bundle import Bundle
    from scoring.schema import ModelSchema

BACKENDS = ("torch", "jax", "tensorflow")
_VARIABLE = "KERAS_BACKEND"
_STYLE = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints parts of its messages bold


class KerasPredictor:
    """Answers with a Keras model, one request at a time: backends keep state while they run."""

    thread_safe = False

    def __init__(self, model: Any, schema: ModelSchema) -> None:
        self.schema = schema
        self.model = model
        self._inputs = [spec.name for spec in schema.inputs]
        self._names = input_names(model)
        self._outputs = [(spec.name, NUMPY_DTYPES[spec.dtype]) for spec in schema.outputs]

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """See `scoring.runtimes.base.Predictor`."""
        try:
            return self._answer(inputs)
        except Exception as error:
            text = " ".join(_STYLE.sub("", str(error)).split())[:400]
            if is_refusal(text):
                raise refusal(text, inputs, self.schema, self._answer) from error
            raise ScoringFailedError(f"The model failed: {text}") from error

    def _answer(self, inputs: Arrays) -> dict[str, Any]:
        found = dict(leaves(self.raw(inputs)))
        return {n: np.asarray(found[n]).astype(d, copy=False) for n, d in self._outputs}

    def raw(self, inputs: Arrays) -> Any:
        """The model's own answer, as nested NumPy arrays."""
        arrays = [inputs[name] for name in self._inputs]
        if isinstance(getattr(self.model, "_inputs_struct", None), dict):
            return self.model.predict_on_batch(dict(zip(self._names, arrays, strict=True)))
        return self.model.predict_on_batch(arrays[0] if len(arrays) == 1 else arrays)


def input_names(model: Any) -> list[str]:
    """The keys of the model's inputs in their order: those of its dict, or the tensors' names."""
    struct = getattr(model, "_inputs_struct", None)
    if isinstance(struct, dict):
        by_tensor = {id(tensor): str(key) for key, tensor in struct.items()}
        return [by_tensor.get(id(tensor), tensor.name) for tensor in model.inputs]
    return [tensor.name for tensor in model.inputs]


def import_keras() -> Any:
    """Imports Keras on a backend that is there: the one that is asked for, or the first found.

    Raises:
        MissingDependencyError: Keras or every backend is missing.
    """
    if "keras" not in sys.modules:
        if find_spec("keras") is None:
            return require("keras", "A Keras model")
        os.environ[_VARIABLE] = backend()
    with quiet():
        return require("keras", "A Keras model")


def backend() -> str:
    """The backend to use.

    Raises:
        MissingDependencyError: None is installed.
    """
    wanted = os.environ.get(_VARIABLE, "")
    for name in (wanted, *BACKENDS):
        if name in BACKENDS and find_spec(name) is not None:
            return name
    raise MissingDependencyError(
        "A Keras model needs one of the packages torch, jax or tensorflow; none is installed.",
        hint="Install one: pip install 'fieldpost[torch]'",
        where="torch",
    )


def open_model(path: Path) -> Any:
    """Reads a `.keras` file without running code from it.

    Raises:
        ModelNotFoundError: There is no such file.
        UnsupportedModelError: It holds Python code, or layers that are not Keras's own.
        CorruptModelError: It is damaged.
    """
    keras = import_keras()
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is not there.", where=str(path))
    try:
        # Keras goes by the name of a file.
        with quiet(), tempfile.TemporaryDirectory() as folder:
            link = Path(folder, "model.keras")
            link.symlink_to(path.resolve())
            return keras.saving.load_model(str(link), compile=False, safe_mode=True)
    except Exception as error:
        raise _load_error(path, error) from error


def _load_error(path: Path, error: Exception) -> ModelFileError:
    text = " ".join(str(error).split())
    if "Lambda" in text or "safe_mode" in text:
        return UnsupportedModelError(
            f"{path} holds a Lambda layer with Python code, which is never run from a file.",
            hint="Replace it by a layer of Keras, or serve the model with a script.",
            where=str(path),
        )
    unknown = re.search(r"Could not locate \w+ '([\w>.]+)'", text)
    if unknown or "could not be deserialized" in text:
        name = unknown[1] if unknown else text[:200]
        return UnsupportedModelError(
            f"{path} needs a class that is not part of Keras: {name}.",
            hint="Build it of Keras's own layers, or export it: model.export('m', format='onnx').",
            where=str(path),
        )
    return CorruptModelError(
        f"{path} cannot be loaded: {text[:300]}",
        hint="Save it again: model.save('model.keras').",
        where=str(path),
    )


def load(path: Path, bundle: Bundle) -> KerasPredictor:
    """Loads a model of a package.

    Raises:
        ModelFileError: The file is missing or broken, or Keras or its backend is missing.
    """
    if bundle.schema is None:
        raise CorruptModelError(f"The package of {path} has no schema.", where=str(path))
    return KerasPredictor(open_model(path), bundle.schema)
