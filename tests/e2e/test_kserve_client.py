"""KServe's own REST client against a live server, where it is installed."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tests.support.oip import Echo, schema
from tests.support.server import serve_models

kserve = pytest.importorskip("kserve")


@pytest.mark.parametrize("binary", [True, False])
def test_kserves_client_is_answered(binary: bool) -> None:
    echo = Echo(
        schema(
            {"x": ("float32", (None, 2)), "s": ("string", (None,))},
            {"x_out": ("float32", (None, 2)), "s_out": ("string", (None,))},
        )
    )
    numbers = np.array([[1, 2], [3, 4]], dtype=np.float32)
    texts = np.array(["a", "é"], dtype=object)

    async def ask(url: str) -> Any:
        config = kserve.RESTConfig(protocol="v2", retries=1)
        client = kserve.InferenceRESTClient(config)
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "echo")
        assert not await client.is_model_ready(url, "other")
        inputs = [
            kserve.InferInput("x", [2, 2], "FP32"),
            kserve.InferInput("s", [2], "BYTES"),
        ]
        for tensor, array in zip(inputs, (numbers, texts), strict=True):
            tensor.set_data_from_numpy(array, binary_data=binary)
        request = kserve.InferRequest(
            model_name="echo",
            infer_inputs=inputs,
            request_id="7",
            parameters={"binary_data_output": binary},
        )
        response = await client.infer(url, request, model_name="echo")
        await client.close()
        return response

    with serve_models({"echo": echo}, warm=False) as server:
        response = asyncio.run(ask(f"http://127.0.0.1:{server.port}"))
    assert response.id == "7"
    assert response.outputs[0].as_numpy().tolist() == numbers.tolist()
    found = response.outputs[1].as_numpy().tolist()
    assert [v.decode() if isinstance(v, bytes) else v for v in found] == ["a", "é"]
