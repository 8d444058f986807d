# mypy: ignore-errors
# It runs in the environment of its framework, which this one's type checker does not see.
"""BentoML, one worker: `bentoml serve benchmarks.peers.bentoml_app:Iris --port PORT`."""

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType

from benchmarks.peers.model import Model


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Scorer:
    def __init__(self):
        self.model = Model()

    @bentoml.api
    def score(self, data: Annotated[np.ndarray, DType("float32")]) -> dict:
        label, probabilities = self.model(data)
        return {"predictions": label.tolist(), "probabilities": probabilities.tolist()}
