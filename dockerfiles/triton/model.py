# mypy: ignore-errors
# ruff: noqa: INP001, E402 - the package has to be entered before anything of it is imported
"""A package as a model of Triton's Python backend.

It computes with the package's own environment and runtime, and reads and writes tensors as
Fieldpost's server does, so that both give the same answers.
"""

import ctypes
import os
import sys
from pathlib import Path

ROOT = Path(os.environ.get("FIELDPOST_ROOT", "/opt/fieldpost"))
sys.path.insert(0, str(ROOT / "runtime"))

from scoring.boot import prepare

# From here on numpy, which Triton's own module imports, is the package's.
prepare(ROOT)

import numpy as np
import triton_python_backend_utils as triton

from scoring import bundle
from scoring.runtimes.base import load
from serve.server.v2.answers import OutputPort
from serve.server.v2.datatypes import BYTES
from serve.server.v2.inputs import Inputs, takes_any_float


class Lent:
    """An array as Triton takes it from any framework, and not as numpy's own.

    Tritons that were compiled for numpy 1 misread arrays of numpy 2. Triton frees what it was lent,
    and marks it in a way that numpy's capsule complains of: it is left to Triton alone.
    """

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_options):
        capsule = self.array.__dlpack__()
        ctypes.pythonapi.PyCapsule_SetDestructor(ctypes.py_object(capsule), None)
        return capsule

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class TritonPythonModel:
    """What the backend calls."""

    def initialize(self, _arguments):
        """Loads the model; what is wrong with it is what Triton reports."""
        described = bundle.read(ROOT)
        self.model = load(ROOT, described)
        schema = self.model.schema
        self.inputs = Inputs(schema, finite=not takes_any_float(described.format))
        self.outputs = [OutputPort(spec, schema.classes) for spec in schema.outputs]

    def execute(self, requests):
        """One answer for each request; a bad one fails alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request):
        """Scores a request."""
        try:
            arrays = {tensor.name(): self.array(tensor) for tensor in request.inputs()}
            found = self.model.predict(self.inputs.complete(arrays))
            tensors = [self.tensor(port, found[port.name]) for port in self.outputs]
        except Exception as error:  # noqa: BLE001 - it is the answer to this request
            message = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            return triton.InferenceResponse(error=triton.TritonError(message))
        wanted = set(request.requested_output_names())
        return triton.InferenceResponse([each for each in tensors if each.name() in wanted])

    def array(self, tensor):
        """An input, checked as Fieldpost's server checks it."""
        where = f"inputs.{tensor.name()}"
        port = self.inputs.port(tensor.name(), where, {})
        given = tensor.as_numpy() if port.datatype == BYTES else np.from_dlpack(tensor)
        shape = port.check_shape(list(given.shape), where)
        if port.datatype == BYTES:
            texts = [text.decode() for text in given.ravel()]
            return port.from_values(texts, shape, where, plain=True)
        return port.from_raw(given.tobytes(), shape, port.datatype, where)

    def tensor(self, port, value):
        """An output; text goes as UTF-8."""
        array = port.array(value)
        if array.dtype != object:
            return triton.Tensor.from_dlpack(port.name, Lent(np.array(array, order="C")))
        texts = [str(text).encode() for text in array.ravel()]
        return triton.Tensor(port.name, np.array(texts, object).reshape(array.shape))
