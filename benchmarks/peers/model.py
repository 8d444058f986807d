"""The model, as every peer runs it: onnxruntime with one thread."""

from __future__ import annotations

import os
from typing import Any

import onnxruntime


class Model:
    """The ONNX file that `BENCH_MODEL` names; called with rows of float32."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, rows: Any) -> tuple[Any, Any]:
        label, probabilities = self.session.run(["label", "probabilities"], {"X": rows})
        return label, probabilities
