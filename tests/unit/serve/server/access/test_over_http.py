"""Who may ask, seen by a client: statuses and headers on every way through a connection."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from serve.server.access import keyfile, keys
from serve.server.access.keychain import Keychain
from serve.server.grpc import frames as f
from serve.server.grpc.messages import ModelStreamInferResponse
from serve.server.grpc.reading import HEAD
from tests.support.http2 import Http2Client, grpc_head, infer_body
from tests.support.issuer import AUDIENCE, Issuer, token
from tests.support.server import (
    BODY,
    Answer,
    Client,
    LiveServer,
    Sums,
    get,
    post,
    serve_models,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

PATHS = ["/score", "/score?x=1", "/v1/models/sums:predict", "/v2/models/sums/infer"]
BODIES = {
    "/v1/models/sums:predict": b'{"instances":[[1,2,3]]}',
    "/v2/models/sums/infer": b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32",'
    b'"data":[1,2,3]}]}',
}


def ask(server: LiveServer, path: str = "/score", *headers: str, method: str = "POST") -> Answer:
    with Client(server.port) as client:
        if method == "POST":
            client.send(post(BODIES.get(path, BODY), path, *headers))
        else:
            client.send(get(path, *headers, method=method))
        return client.read()


def bearer(text: str) -> str:
    return f"Authorization: Bearer {text}"


def guarded(chain: Keychain, models: dict[str, Any] | None = None, **given: Any) -> LiveServer:
    return serve_models(models or {"sums": Sums()}, api_keys=str(chain.path), **given)


@pytest.fixture
def chain(tmp_path: Path) -> Keychain:
    made = Keychain(tmp_path / "keys.json")
    made.create("nobody")
    return made


@pytest.mark.parametrize("path", PATHS)
def test_without_a_key_the_answer_says_how_to_ask(chain: Keychain, path: str) -> None:
    _, text = chain.create("ci")
    with guarded(chain) as server:
        for headers in ([], [bearer("fp_wrong")], ["X-API-Key: wrong"]):
            answer = ask(server, path, *headers)
            assert answer.status == 401
            assert answer.headers["www-authenticate"]
            assert b"Bearer realm" in answer.raw_head
            assert b"ApiKey realm" in answer.raw_head
            assert "error" in json.loads(answer.body)
        for header in (bearer(text), f"X-API-Key: {text}", f"Authorization: ApiKey {text}"):
            assert ask(server, path, header).status == 200


def test_probes_need_no_key(chain: Keychain) -> None:
    with guarded(chain) as server:
        for path in ("/", "/health/live", "/health/ready", "/health/startup", "/ping",
                     "/v2/health/live", "/v2/health/ready"):  # fmt: skip
            assert ask(server, path, method="GET").status == 200
        for path in ("/metrics", "/v2", "/openapi.json", "/v1/models", "/version"):
            assert ask(server, path, method="GET").status == 401


def test_a_scope_that_is_missing_is_named(chain: Keychain) -> None:
    _, infers = chain.create("ci")
    _, administers = chain.create("operator", scopes=["admin"])
    load = "/v2/repository/models/sums/load"
    with guarded(chain) as server:
        for path, header in ((load, bearer(infers)), ("/score", bearer(administers))):
            answer = ask(server, path, header)
            assert answer.status == 403
            assert "scope" in answer.body.decode()
        assert ask(server, "/metrics", bearer(infers), method="GET").status == 403
        assert ask(server, "/metrics", bearer(administers), method="GET").status == 200


def test_a_key_for_one_model_is_for_no_other(chain: Keychain) -> None:
    _, text = chain.create("ci", models=["one"])
    with guarded(chain, {"one": Sums(), "two": Sums()}) as server:
        body = b'{"instances":[[1,2,3]]}'
        for name, status in (("one", 200), ("two", 403), ("%74wo", 403)):
            with Client(server.port) as client:
                client.send(post(body, f"/v1/models/{name}:predict", bearer(text)))
                assert client.read().status == status


def test_too_many_requests_are_told_when_to_come_back(chain: Keychain) -> None:
    _, text = chain.create("ci", rate=0.001, burst=2)
    with guarded(chain) as server:
        assert ask(server, "/score", bearer(text)).status == 200
        assert ask(server, "/score", bearer(text)).status == 200
        answer = ask(server, "/score", bearer(text))
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) > 900
        assert json.loads(answer.body)["error"]["code"] == "rate_limited"


def test_without_keys_addresses_are_limited() -> None:
    with serve_models({"sums": Sums()}, rate_limit=0.001, rate_burst=3) as server:
        assert [ask(server).status for _ in range(4)] == [200, 200, 200, 429]
        assert ask(server, "/health/ready", method="GET").status == 200


def test_a_revoked_key_is_out_within_a_second_on_an_open_connection(chain: Keychain) -> None:
    key, text = chain.create("ci")
    with guarded(chain) as server, Client(server.port) as client:
        client.send(post(BODY, "/score", bearer(text)))
        assert client.read().status == 200
        chain.revoke(key.id)
        revoked = time.monotonic()
        status = 200
        while status == 200:
            client.send(post(BODY, "/score", bearer(text)))
            status = client.read().status
        assert status == 401
        assert time.monotonic() - revoked < 2.0  # half a second, and what a busy machine adds


def test_a_new_key_is_taken_while_the_server_runs(chain: Keychain) -> None:
    with guarded(chain) as server:
        _, text = chain.create("ci")
        deadline = time.monotonic() + 5
        while ask(server, "/score", bearer(text)).status != 200:
            assert time.monotonic() < deadline
        content = keyfile.read(chain.path)
        over = msgspec.structs.replace(content.keys[1], expires=datetime(2020, 1, 1, tzinfo=UTC))
        keyfile.write(chain.path, keys.KeyFile((content.keys[0], over)))
        while ask(server, "/score", bearer(text)).status != 401:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("path", PATHS)
def test_a_token_is_taken_from_its_first_request_on(path: str) -> None:
    with (
        Issuer() as issuer,
        serve_models({"sums": Sums()}, oidc_issuer=issuer.url, oidc_audience=AUDIENCE) as server,
    ):
        good, wrong = token(issuer.url), token(issuer.url, aud="another")
        for _ in range(2):
            assert ask(server, path, bearer(good)).status == 200
            answer = ask(server, path, bearer(wrong))
            assert answer.status == 401
            assert 'error="invalid_token"' in answer.raw_head.decode()
            assert ask(server, path, bearer(token(issuer.url, scope="openid"))).status == 403
            assert ask(server, path).status == 401


def test_requests_that_wait_for_the_issuer_are_answered_in_order() -> None:
    with (
        Issuer() as issuer,
        serve_models({"sums": Sums()}, oidc_issuer=issuer.url, oidc_audience=AUDIENCE) as server,
        Client(server.port) as client,
    ):
        header = bearer(token(issuer.url))
        client.send(*[post(BODY, "/score", header)] * 5)
        assert [client.read().status for _ in range(5)] == [200] * 5


def test_secrets_are_in_no_answer_and_no_log(
    chain: Keychain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    _, text = chain.create("ci", models=[])
    with guarded(chain) as server:
        for path in (*PATHS, "/metrics", "/elsewhere"):
            for shown in (text, text[:-1]):
                assert text[:-1] not in ask(server, path, bearer(shown)).body.decode()
    assert text[:-1] not in caplog.text


def open_stream(client: Http2Client, text: str) -> None:
    """Begins a ModelStreamInfer under a key."""
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    client.send(client.head(1, grpc_head(path, ("authorization", f"Bearer {text}"))))


def ask_stream(client: Http2Client) -> str:
    """The error of the next request of the stream; empty where it is answered."""
    client.send(client.data(1, infer_body([1, 2, 3]), end=False))
    answer = ModelStreamInferResponse.FromString(bytes(client.until(f.DATA).data[HEAD:]))
    return str(answer.error_message)


def test_the_requests_of_a_stream_are_counted_too(chain: Keychain) -> None:
    _, text = chain.create("ci", rate=0.001, burst=3)
    with guarded(chain) as server, Http2Client(server.port) as client:
        open_stream(client, text)
        assert [bool(ask_stream(client)) for _ in range(5)] == [False] * 3 + [True] * 2
        assert "requests a second" in ask_stream(client)


def test_a_stream_ends_with_its_key(chain: Keychain) -> None:
    key, text = chain.create("ci")
    with guarded(chain) as server, Http2Client(server.port) as client:
        open_stream(client, text)
        assert ask_stream(client) == ""
        chain.revoke(key.id)

        def is_over() -> bool:
            client.send(client.data(1, infer_body([1, 2, 3]), end=False))
            while True:
                frame = client.read()
                if frame.type == f.DATA:
                    return False
                if frame.type == f.HEADERS and "END_STREAM" in frame.flags:
                    fields = {str(k): str(v) for k, v in client.decoder.decode(frame.data)}
                    return fields["grpc-status"] == "16"
                if frame.type == f.HEADERS:
                    client.decoder.decode(frame.data)

        until(is_over, 5)
