"""HTTP/2 over TLS: gRPC and plain requests, chosen by the handshake."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc as stubs

from serve.server import answering
from serve.server.access import tls
from serve.server.grpc import leaving
from serve.server.protocol import Connection
from serve.server.settings import ServerSettings
from tests.support.certificates import Authority
from tests.support.echo import Echo
from tests.support.grpc_calls import request, sums_request, totals
from tests.support.server import LiveServer, Sums, serve_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def secure(tmp_path: Path, authority: Authority) -> Iterator[tuple[LiveServer, int, Path]]:
    """A server with a second port, behind TLS, and the authority's certificate."""
    cert, key = authority.issue(tmp_path, "server")
    context = tls.context(ServerSettings(tls_cert=str(cert), tls_key=str(key)))
    with serve_models({"sums": Sums(), "echo": Echo("uint8")}) as live:

        async def listen() -> Any:
            return await live.loop.create_server(
                lambda: Connection(live.hub), "127.0.0.1", 0, ssl=context
            )

        server = asyncio.run_coroutine_threadsafe(listen(), live.loop).result(10)
        port = server.sockets[0].getsockname()[1]
        yield live, port, authority.write(tmp_path / "authority.pem")
        live.call(server.close)


def test_grpc_over_tls(secure: tuple[LiveServer, int, Path]) -> None:
    live, port, authority = secure
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        stub: Any = stubs.GRPCInferenceServiceStub(channel)
        assert totals(stub.ModelInfer(sums_request([1, 2, 3]))) == [6.0]
        calls = [stub.ModelInfer.future(sums_request([n, 0, 0])) for n in range(200)]
        assert [totals(call.result(10))[0] for call in calls] == [*range(200)]
        body = np.random.default_rng(1).bytes(3 << 20)
        answer = stub.ModelInfer(request("echo", "UINT8", [1, len(body)], body))
        assert answer.raw_output_contents[0] == body
        live.call(live.hub.end_idle)
        live.until(lambda: live.hub.connections == 0)
        assert totals(stub.ModelInfer(sums_request([1, 1, 1]), wait_for_ready=True)) == [3.0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_chooses_by_the_handshake(secure: tuple[LiveServer, int, Path], version: str) -> None:
    _, port, authority = secure
    done = subprocess.run(
        ["curl", "-sS", version, "--cacert", str(authority), "-w", "%{http_version} %{http_code}",
         "-d", '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}',
         "-H", "content-type: application/json",
         f"https://127.0.0.1:{port}/v2/models/sums/infer"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.endswith(f"{version.removeprefix('--http')} 200")
    assert '"data":[6.0]' in done.stdout


@pytest.mark.parametrize("module", [answering, leaving], ids=["http/1.1", "http/2"])
def test_a_client_that_keeps_its_connection_does_not_hold_up_the_end(
    secure: tuple[LiveServer, int, Path], monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    """It hears that the connection ends when it uses it again: until then it says nothing."""
    monkeypatch.setattr(module, "_LINGER_S", 0.2)
    live, port, authority = secure
    context = ssl.create_default_context(cafile=str(authority))
    with httpx.Client(http2=module is leaving, verify=context) as client:
        answer = client.post(f"https://127.0.0.1:{port}/score", json={"data": [[1, 2, 3]]})
        assert answer.http_version.lower() == ("http/2" if module is leaving else "http/1.1")
        live.call(live.hub.end_idle)
        live.until(lambda: not live.hub.connections, 5)
