"""Scoring scripts over HTTP/2, with and without TLS: their answers have long heads."""

from __future__ import annotations

import json
import ssl
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.certificates import Authority
from tests.support.http2 import Http2Client
from tests.support.scripts import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.scripts import ScriptWorker

SCRIPT = """
    import json
    from azureml.contrib.services.aml_response import AMLResponse

    def init():
        pass

    def run(data):
        asked = json.loads(data)
        if "head" in asked:
            return AMLResponse("long", 200, {"x-long": "h" * asked["head"]})
        if "parts" in asked:
            return (f"part {n}\\n" for n in range(asked["parts"]))
        return asked
"""
LENGTHS = [1, 100, 255, 256, 257, 511, 4096, 16_000, 16_384, 17_000, 40_000]
"""Of a field: around what fits into a byte, and into a frame."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptWorker]:
    with serving(tmp_path_factory.mktemp("plain"), SCRIPT) as worker:
        yield worker


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptWorker, Path]]:
    folder, authority = tmp_path_factory.mktemp("secure"), Authority()
    cert, key = authority.issue(folder, "server")
    given = {"FIELDPOST_SERVER_TLS_CERT": str(cert), "FIELDPOST_SERVER_TLS_KEY": str(key)}
    with serving(folder, SCRIPT, **given) as worker:
        yield worker, authority.write(folder / "authority.pem")


def test_a_client_that_reads_frames_gets_whole_heads(plain: ScriptWorker) -> None:
    with Http2Client(plain.port) as client:
        client.decoder.max_header_list_size = 1 << 20
        for number, length in enumerate(LENGTHS):
            stream_id = 2 * number + 1
            fields = [
                (":method", "POST"), (":scheme", "http"), (":path", "/score"),
                (":authority", "test"), ("content-type", "application/json"),
            ]  # fmt: skip
            data = json.dumps({"head": length}).encode()
            client.send(client.head(stream_id, fields), _data(stream_id, data))
            head, body = _answer(client, stream_id)
            assert (head[":status"], head["x-long"], body) == ("200", "h" * length, b"long")
            assert head["x-ms-run-function-failed"] == "False"


def _data(stream_id: int, data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + b"\0\1" + stream_id.to_bytes(4, "big") + data


def _answer(client: Http2Client, stream_id: int) -> tuple[dict[str, str], bytes]:
    """Head and body, whose head may come in several frames."""
    block = body = b""
    while True:
        frame = client.read()
        if frame.stream_id != stream_id:
            continue
        assert type(frame).__name__ in {"HeadersFrame", "ContinuationFrame", "DataFrame"}, frame
        if type(frame).__name__ == "DataFrame":
            body += frame.data
        else:
            block += frame.data
        if "END_STREAM" in frame.flags:
            fields = client.decoder.decode(block)
            return {str(key): str(value) for key, value in fields}, body


def test_curl_speaks_http2_without_tls(plain: ScriptWorker) -> None:
    assert _curl(f"{plain.url}/score", "--http2-prior-knowledge") == ('{"x":1}', "2 200")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_chooses_by_the_handshake(secure: tuple[ScriptWorker, Path], version: str) -> None:
    worker, authority = secure
    answer = _curl(f"{worker.url}/score", version, "--cacert", str(authority))
    assert answer == ('{"x":1}', f"{version.removeprefix('--http')} 200")


def _curl(url: str, *options: str) -> tuple[str, str]:
    """The body, and the version and status."""
    command = ["curl", "-sS", *options, "-w", "\n%{http_version} %{http_code}"]
    # curl's own choice for -d is a form, whose body scripts do not get.
    head = ["-H", "content-type: application/json", "-d", '{"x": 1}']
    try:
        done = subprocess.check_output([*command, *head, url], timeout=20, text=True)
    except FileNotFoundError:
        pytest.skip("curl is not installed")
    body, _, rest = done.rpartition("\n")
    return body, rest


def test_answers_and_streams_over_tls(secure: tuple[ScriptWorker, Path]) -> None:
    worker, authority = secure
    context = ssl.create_default_context(cafile=str(authority))
    with httpx.Client(http2=True, verify=context, base_url=worker.url) as client:
        answer = client.post("/score", json={"x": [1, 2]})
        assert (answer.http_version, answer.json()) == ("HTTP/2", {"x": [1, 2]})
        for length in LENGTHS[:8]:  # more than 64 KiB is more than h2 takes
            assert client.post("/score", json={"head": length}).headers["x-long"] == "h" * length
        with client.stream("POST", "/score", json={"parts": 300}) as parts:
            assert "".join(parts.iter_text()) == "".join(f"part {n}\n" for n in range(300))
        failed = client.post("/score", content=b"{")
        assert failed.status_code in {400, 500}
        assert "message" in failed.json()
        assert client.get("/nowhere").status_code == 404
