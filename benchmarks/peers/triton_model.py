# mypy: ignore-errors
# It runs in the interpreter that Triton's Python backend embeds.
"""A model of Triton's Python backend."""

import os
import sys

# The embedded interpreter takes no PYTHONPATH.
sys.path[:0] = os.environ["BENCH_PATH"].split(os.pathsep)

import triton_python_backend_utils as triton  # noqa: E402

from benchmarks.peers.model import Model  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):  # noqa: ARG002
        self.model = Model()

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        rows = triton.get_input_tensor_by_name(request, "X").as_numpy()
        label, probabilities = self.model(rows)
        outputs = [
            triton.Tensor("label", label),
            triton.Tensor("probabilities", probabilities),
        ]
        return triton.InferenceResponse(outputs)
