"""A scoring script as people write them for Azure ML; both servers run it as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

session: Any = None


def init() -> None:
    global session  # noqa: PLW0603 - as such scripts do
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = Path(os.environ["AZUREML_MODEL_DIR"]) / "iris.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(raw_data: str) -> dict[str, Any]:
    rows = np.array(json.loads(raw_data)["data"], dtype=np.float32)
    label, probabilities = session.run(["label", "probabilities"], {"X": rows})
    return {"predictions": label.tolist(), "probabilities": probabilities.tolist()}
