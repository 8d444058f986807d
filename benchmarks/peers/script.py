"""A scoring script of Azure ML that keeps account of its own time; served by both servers.

The string `account` is answered with how often `run` ran and how long that took in all.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

account = {"count": 0, "seconds": 0.0}
session: Any = None


def init() -> None:
    global session  # noqa: PLW0603 - as such scripts do
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = Path(os.environ["AZUREML_MODEL_DIR"]) / "iris.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(raw_data: str) -> dict[str, Any]:
    begun = time.perf_counter()
    if raw_data == "account":
        return dict(account)
    rows = np.array(json.loads(raw_data)["data"], dtype=np.float32)
    label, probabilities = session.run(["label", "probabilities"], {"X": rows})
    answer = {"predictions": label.tolist(), "probabilities": probabilities.tolist()}
    account["count"] += 1
    account["seconds"] += time.perf_counter() - begun
    return answer
