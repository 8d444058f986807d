"""KServe's own clients against a live server.

They are installed once, into `.build/kserve-peer` (300 MB); where that cannot be done these tests
are skipped. Deselect them with `-m "not slow"`.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.support.oip import Echo, schema
from tests.support.peers import python_with
from tests.support.server import Sums, serve_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PEER = "kserve==0.21.0"

# Runs in the peer's environment.
CALLS = """
import asyncio, json, logging, sys
import grpc, httpx, numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
logging.disable()
port = sys.argv[1]
url = f"http://127.0.0.1:{port}"
NUMBERS = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
TEXTS = np.array(["a", "é"], dtype=object)
HALVES = np.array([[0.5, 2]], dtype=np.float16)

def tensor(name, array, datatype, binary):
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made

def echo(binary, **parameters):
    numbers, texts = tensor("x", NUMBERS, "FP32", binary), tensor("s", TEXTS, "BYTES", binary)
    return InferRequest("echo", [numbers, texts], request_id="7", parameters=parameters)

def short(binary):
    return InferRequest("echo", [tensor("x", NUMBERS[:, :2], "FP32", binary)])

def plain(array):
    return [v.decode() if isinstance(v, bytes) else v for v in array.tolist()]

def arrays(response):
    return [response.id, *(plain(output.as_numpy()) for output in response.outputs)]

async def refused(call):
    try:
        return repr(await call)
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]
    except grpc.RpcError as error:
        return [error.code().name, error.details()]

async def rest_v2():
    client, told = InferenceRESTClient(RESTConfig(protocol="v2", retries=1)), {}
    told["live"] = await client.is_server_live(url)
    told["ready"] = await client.is_server_ready(url)
    told["models"] = [await client.is_model_ready(url, name) for name in ("echo", "other")]
    told["answers"] = [
        arrays(await client.infer(url, echo(binary, **more), model_name="echo"))
        for binary in (True, False)
        for more in ({}, {"binary_data_output": True}, {"binary_data_output": False})
    ]
    halves = InferRequest("halves", [tensor("h", HALVES, "FP16", True)])
    halves.parameters = {"binary_data_output": True}
    told["halves"] = arrays(await client.infer(url, halves, model_name="halves"))[1]
    told["unknown"] = await refused(client.infer(url, echo(True), model_name="other"))
    told["wrong"] = [
        await refused(client.infer(url, short(binary), model_name="echo"))
        for binary in (True, False)
    ]
    await client.close()
    return told

async def rest_v1():
    client, told = InferenceRESTClient(RESTConfig(protocol="v1", retries=1)), {}
    told["ready"] = await client.is_model_ready(url, "sums")
    told["answer"] = await client.infer(url, {"instances": [[1, 2, 3]]}, model_name="sums")
    told["unknown"] = await refused(client.infer(url, {"instances": []}, model_name="other"))
    told["wrong"] = await refused(client.infer(url, {"instances": [[1, 2]]}, model_name="sums"))
    await client.close()
    return told

async def by_grpc():
    client, told = InferenceGRPCClient(f"127.0.0.1:{port}"), {}
    told["live"] = await client.is_server_live()
    told["ready"] = await client.is_server_ready()
    told["model"] = await client.is_model_ready("echo")
    told["answers"] = [arrays(await client.infer(echo(binary))) for binary in (True, False)]
    halves = InferRequest("halves", [tensor("h", HALVES, "FP16", True)])
    told["halves"] = arrays(await client.infer(halves))[1]
    unknown = echo(True)
    unknown.model_name = "other"
    told["unknown"] = await refused(client.infer(unknown))
    told["wrong"] = [await refused(client.infer(short(binary))) for binary in (True, False)]
    await client.close()
    return told

async def calls():
    return {"v2": await rest_v2(), "v1": await rest_v1(), "grpc": await by_grpc()}

print(json.dumps(asyncio.run(calls())))
"""

ECHOED = ["7", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], ["a", "é"]]
UNKNOWN = "Request for unknown model: 'other' is not found"
WRONG = "Expected [-1, 3], got [2, 2]"


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the calls brought, all in one process: to import the peer takes seconds."""
    python = python_with("kserve-peer", PEER)
    echo = Echo(
        schema(
            {"x": ("float32", (None, 3)), "s": ("string", (None,))},
            {"x_out": ("float32", (None, 3)), "s_out": ("string", (None,))},
        )
    )
    halves = Echo(schema({"h": ("float16", (None, 2))}, {"h_out": ("float16", (None, 2))}))
    models = {"echo": echo, "halves": halves, "sums": Sums()}
    with serve_models(models, warm=False) as server:
        done = subprocess.run(
            [python, "-c", CALLS, str(server.port)],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_its_rest_client_is_answered_by_v2(told: dict[str, Any]) -> None:
    found = told["v2"]
    assert (found["live"], found["ready"], found["models"]) == (True, True, [True, False])
    assert found["answers"] == [ECHOED] * 6
    assert found["halves"] == [[0.5, 2.0]]
    status, message = found["unknown"]
    assert status == 404
    assert UNKNOWN in message
    for status, message in found["wrong"]:
        assert status == 400
        assert WRONG in message


def test_its_rest_client_is_answered_by_v1(told: dict[str, Any]) -> None:
    found = told["v1"]
    assert found["ready"] is True
    assert found["answer"]["predictions"] == [{"total": 6.0, "twice": [2.0, 4.0, 6.0]}]
    status, message = found["unknown"]
    assert status == 404
    assert UNKNOWN in message
    status, message = found["wrong"]
    assert status == 400
    assert "instances[0] has 2 values" in message


def test_its_grpc_client_is_answered(told: dict[str, Any]) -> None:
    found = told["grpc"]
    assert (found["live"], found["ready"], found["model"]) == (True, True, True)
    assert found["answers"] == [ECHOED] * 2
    assert found["halves"] == [[0.5, 2.0]]
    assert found["unknown"][0] == "NOT_FOUND"
    assert UNKNOWN in found["unknown"][1]
    for code, message in found["wrong"]:
        assert code == "INVALID_ARGUMENT"
        assert WRONG in message
