"""What passes through a front besides HTTP/1.1 in the clear: gRPC, and TLS on either side."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from scoring.errors import UsageError
from serve.endpoints.front.config import Address
from serve.endpoints.service import Endpoints
from serve.endpoints.traffic import Traffic
from tests.support.certificates import Authority
from tests.support.fronts import Far, LiveFront
from tests.support.local import site
from tests.support.server import ANSWER, BODY, Client, LiveServer, post, serve_model, until

grpc = pytest.importorskip("grpc")


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with serve_model() as live:
        yield live


def live(channel: object) -> bool:
    """Whether the server behind the channel says that it lives (an empty message each way)."""
    call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")  # type: ignore[attr-defined]
    return bool(call(b"", timeout=10) == b"\x08\x01")


def test_our_server_answers_through_a_front_as_it_does_itself(server: LiveServer) -> None:
    url = f"http://127.0.0.1:{server.port}"
    traffic = Traffic(weights={"sums": 1})
    with LiveFront(traffic, {"sums": url}) as front, Client(front.port) as client:
        for _ in range(3):
            client.send(post(BODY, "/score", "Content-Type: application/json"))
            assert json.loads(client.read().body) == ANSWER


def test_grpc_passes_by_connection_and_moves_when_traffic_does(server: LiveServer) -> None:
    with serve_model() as other:
        urls = {
            "blue": f"http://127.0.0.1:{server.port}",
            "green": f"http://127.0.0.1:{other.port}",
        }
        with (
            LiveFront(Traffic(weights={"blue": 1, "green": 0}), urls) as front,
            grpc.insecure_channel(f"127.0.0.1:{front.port}") as channel,
        ):
            assert live(channel)
            assert front.counts("blue").tunnels == 1
            front.apply(Traffic(weights={"green": 1, "blue": 0}), urls)
            # The connection is told to go; the next call is on a new one, and none is lost.
            until(lambda: live(channel) and front.counts("green").tunnels == 1)
            for _ in range(20):
                assert live(channel)
            assert front.counts("blue").tunnels == 1


def test_grpc_before_nobody_is_refused() -> None:
    with (
        LiveFront(Traffic(weights={"blue": 1}), {"blue": "http://127.0.0.1:1"}) as front,
        grpc.insecure_channel(f"127.0.0.1:{front.port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        live(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def speaking(cert: Path, key: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(cert, key)
    return made


def test_a_deployment_behind_tls_is_known_by_its_certificate(tmp_path: Path) -> None:
    cert, key = Authority("ours").issue(tmp_path, "blue")
    other, _ = Authority("theirs").issue(tmp_path, "other")
    traffic = Traffic(weights={"blue": 1})
    with Far("blue", tls=speaking(cert, key)) as far:
        for certificate, status in ((cert, 200), (other, 503), (tmp_path / "none", 503)):
            address = Address(far.url, str(certificate))
            with LiveFront(traffic, {"blue": address}) as front, Client(front.port) as client:
                client.send(post())
                assert client.read().status == status, certificate


def test_an_endpoint_speaks_tls_itself(tmp_path: Path) -> None:
    authority = Authority("ours")
    cert, key = authority.issue(tmp_path, "ep")
    with site(tmp_path / "workspace") as opened:
        opened.deploy("blue", {"answer": "blue"})
        endpoints = Endpoints(opened.registry)
        settings = {"tls_cert": str(cert), "tls_key": str(key)}
        with pytest.raises(UsageError, match="belong together"):
            endpoints.create("ep", Traffic(weights={"blue": 1}), settings={"tls_cert": str(cert)})
        view = endpoints.create("ep", Traffic(weights={"blue": 1}), settings=settings)
        try:
            context = ssl.create_default_context(cafile=str(authority.write(tmp_path / "ca.pem")))
            with urllib.request.urlopen(view.url, context=context, timeout=10) as answer:
                assert answer.read().startswith(b"blue")
        finally:
            endpoints.delete("ep")
