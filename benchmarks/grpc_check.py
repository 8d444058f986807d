"""Asks a gRPC server as a client does, and prints the labels of one iris row as JSON.

python -m benchmarks.grpc_check HOST:PORT [AUTHORIZATION]
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

_PATIENCE_S = 30
_PAUSE_S = 0.1


def labels(address: str, authorization: str) -> list[int]:
    """The labels of one row; asks again while the server is not ready."""
    tensor = InferInput("X", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.array([[5.1, 3.5, 1.4, 0.2]], dtype=np.float32))
    headers = {"authorization": authorization} if authorization else None
    deadline = time.monotonic() + _PATIENCE_S
    with InferenceServerClient(address) as client:
        while True:
            try:
                result = client.infer("iris", [tensor], headers=headers)
            except InferenceServerException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
                continue
            found: list[int] = result.as_numpy("label").ravel().tolist()
            return found


if __name__ == "__main__":
    print(json.dumps(labels(sys.argv[1], "".join(sys.argv[2:]))))
