# mypy: ignore-errors
# It runs in the environment of its framework, which this one's type checker does not see.
"""FastAPI as its tutorial has it: `uvicorn benchmarks.peers.fastapi_app:app`."""

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.model import Model

app = FastAPI()
model = Model()


class Rows(BaseModel):
    data: list[list[float]]


class Predictions(BaseModel):
    predictions: list[int]
    probabilities: list[list[float]]


@app.post("/score")
async def score(rows: Rows) -> Predictions:
    label, probabilities = model(np.array(rows.data, dtype=np.float32))
    return Predictions(predictions=label.tolist(), probabilities=probabilities.tolist())
