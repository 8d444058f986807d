"""PyTorch programs: exported ones (`.pt2`) and TorchScript. Neither needs the model's code."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import (
    CorruptModelError,
    ModelNotFoundError,
    ScoringFailedError,
    UnsupportedModelError,
    UntrustedModelError,
)
from scoring.runtimes.base import NUMPY_DTYPES, Arrays
from scoring.runtimes.dependencies import quiet, require
from scoring.runtimes.leaves import leaves
from scoring.runtimes.refusals import is_refusal, refusal
from scoring.runtimes.threads import threads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from scoring.bundle import Bundle
    from scoring.schema import ModelSchema

THREADS_VARIABLE = "FIELDPOST_TORCH_THREADS"
_WHAT = "A PyTorch model"
Call = Callable[[list[Any]], Any]
"""Takes the input tensors in the order of the schema, gives the module's answer."""


class TorchPredictor:
    """Answers with a PyTorch program; gradients are off, so threads share nothing that changes."""

    thread_safe = True

    def __init__(self, call: Call, schema: ModelSchema) -> None:
        self.schema = schema
        self._call = call
        self._torch = require("torch", _WHAT)
        self._inputs = [spec.name for spec in schema.inputs]
        self._outputs = [(spec.name, NUMPY_DTYPES[spec.dtype]) for spec in schema.outputs]

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """See `scoring.runtimes.base.Predictor`."""
        try:
            return self._answer(inputs)
        except Exception as error:
            text = last_line(error)
            if is_refusal(text):
                raise refusal(text, inputs, self.schema, self._answer) from error
            raise ScoringFailedError(f"The model failed: {text}") from error

    def _answer(self, inputs: Arrays) -> dict[str, Any]:
        found = dict(leaves(self.raw([inputs[name] for name in self._inputs])))
        return {name: as_array(found[name]).astype(d, copy=False) for name, d in self._outputs}

    def raw(self, arrays: list[NDArray[Any]]) -> Any:
        """The program's own answer."""
        with self._torch.inference_mode():
            return self._call([self._torch.from_numpy(_owned(array)) for array in arrays])


def _owned(array: NDArray[Any]) -> NDArray[Any]:
    """The array as PyTorch can share it: its strides are not negative and it may be written."""
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else array.copy()


def as_array(value: Any) -> NDArray[Any]:
    """A tensor (of a type that NumPy lacks, too) or a number as an array."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    if str(tensor.dtype) in ("torch.bfloat16", "torch.float8_e4m3fn", "torch.float8_e5m2"):
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def last_line(error: BaseException) -> str:
    """The line of an error that says what is wrong; TorchScript puts it under its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and "Traceback of TorchScript" in str(error):
        return lines[-1][:400]
    return (lines[0] if lines else type(error).__name__)[:400]


def open_program(path: Path) -> Any:
    """Reads an exported program (`.pt2`).

    Raises:
        ModelNotFoundError: There is no such file.
        CorruptModelError: PyTorch cannot read it.
    """
    torch = require("torch", _WHAT)
    try:
        # PyTorch refuses paths that do not end in .pt2, but reads any open file.
        with quiet(), _silent_logs(), path.open("rb") as file:
            return torch.export.load(file)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{path} is not there.", where=str(path)) from error
    except Exception as error:
        raise CorruptModelError(
            f"PyTorch {torch.__version__} cannot read {path}: {last_line(error)}",
            hint="Export it again with the PyTorch that is installed: torch.export.save(program, "
            "'model.pt2').",
            where=str(path),
        ) from error


@contextlib.contextmanager
def _silent_logs() -> Iterator[None]:
    """PyTorch logs a failure to read before it raises it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def open_script(path: Path) -> Any:
    """Reads a TorchScript module and sets it to evaluation.

    Raises:
        ModelNotFoundError: There is no such file.
        UnsupportedModelError: It uses operators that are not there.
        CorruptModelError: PyTorch cannot read it.
    """
    torch = require("torch", _WHAT)
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is not there.", where=str(path))
    try:
        with quiet():
            return torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        if "Unknown builtin op" in text or "Unknown type name" in text:
            raise UnsupportedModelError(
                f"{path} needs operators that PyTorch {torch.__version__} does not have: {text}",
                hint="Export it again without custom operators.",
                where=str(path),
            ) from error
        raise CorruptModelError(
            f"PyTorch {torch.__version__} cannot read {path}: {text}",
            hint="Save it again: torch.jit.script(model).save('model.pt').",
            where=str(path),
        ) from error


def call_program(program: Any) -> Call:
    """A function that runs an exported program on a flat list of tensors."""
    pytree = require("torch.utils._pytree", _WHAT)
    module, spec = program.module(), program.call_spec.in_spec

    def call(tensors: list[Any]) -> Any:
        args, kwargs = pytree.tree_unflatten(tensors, spec)
        return module(*args, **kwargs)

    return call


def call_script(module: Any) -> Call:
    """A function that runs a TorchScript module on a list of tensors."""
    return lambda tensors: module(*tensors)


def load(path: Path, bundle: Bundle) -> TorchPredictor:
    """Loads a program of a package.

    Raises:
        ModelFileError: The file is missing or broken, or PyTorch is not installed.
        UntrustedModelError: It holds a pickle that the package does not trust.
    """
    if bundle.schema is None:
        raise CorruptModelError(f"The package of {path} has no schema.", where=str(path))
    torch = require("torch", _WHAT)
    torch.set_num_threads(threads(THREADS_VARIABLE) or torch.get_num_threads())
    if bundle.runtime == "torchscript":
        return TorchPredictor(call_script(open_script(path)), bundle.schema)
    _require_trust(path, bundle)
    return TorchPredictor(call_program(open_program(path)), bundle.schema)


def _require_trust(path: Path, bundle: Bundle) -> None:
    from scoring.formats.detect import detect_file  # noqa: PLC0415 - once, at the start

    if detect_file(path).runs_code and not bundle.pickle_trusted:
        raise UntrustedModelError(
            f"{path} holds a pickle, and this package does not trust it.",
            hint="If you trust it, register the model again with --trust-pickle.",
            where=str(path),
        )
