"""Large bodies where there is no simdjson, which has no wheel for every version of Python."""

from __future__ import annotations

import json

import pytest

from scoring.payload import quick
from scoring.schema import ModelSchema, TensorSpec
from serve.server.v2 import quick as v2_quick

SCHEMA = ModelSchema(
    inputs=(TensorSpec("x", "float32", (None, 2)),),
    outputs=(TensorSpec("y", "float32", (None,)),),
)
ROWS = [[0.5, float(number)] for number in range(2000)]


@pytest.mark.parametrize("present", [True, False])
def test_large_bodies_mean_the_same_with_and_without(
    monkeypatch: pytest.MonkeyPatch, present: bool
) -> None:
    if not present:
        for module in (quick, v2_quick):
            monkeypatch.setattr(module, "find_spec", lambda _name: None)
    inputs = quick.quick_decoder(SCHEMA)(json.dumps({"data": ROWS}).encode())
    assert inputs is not None
    assert inputs["x"].tolist() == ROWS
    tensor = {
        "name": "x",
        "shape": [2000, 2],
        "datatype": "FP32",
        "data": [x for row in ROWS for x in row],
    }
    found = v2_quick.quick_reader(SCHEMA)(json.dumps({"inputs": [tensor]}).encode())
    assert found is not None
    assert found[0]["x"].tolist() == ROWS
