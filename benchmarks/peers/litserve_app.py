# mypy: ignore-errors
# It runs in the environment of its framework, which this one's type checker does not see.
"""LitServe, one worker on the CPU: `python -m benchmarks.peers.litserve_app PORT`."""

import sys

import litserve
import numpy as np

from benchmarks.peers.model import Model


class Api(litserve.LitAPI):
    def setup(self, device):  # noqa: ARG002
        self.model = Model()

    def decode_request(self, request):
        return np.array(request["data"], dtype=np.float32)

    def predict(self, rows):
        return self.model(rows)

    def encode_response(self, output):
        label, probabilities = output
        return {"predictions": label.tolist(), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
