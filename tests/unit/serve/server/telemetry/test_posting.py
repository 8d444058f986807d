"""Batches on their way over a real connection, to collectors good and bad."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from serve.server.telemetry import otlp, posting
from serve.server.telemetry.otlpsettings import Target
from serve.server.telemetry.posting import Poster, SendError, retry_after_s
from tests.support.certificates import Authority
from tests.support.collector import Collector
from tests.support.server import until

BODY = otlp.export_request(
    otlp.resource({"service.name": "s"}), [(otlp.scope(""), otlp.Span("a", 1, 2, 3, 4).encode())]
)
OTLP = "OTEL_EXPORTER_OTLP_"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(posting, "_LEAST_PAUSE_S", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again: the pause is longer than the timeout."""
    monkeypatch.setattr(posting, "_FIRST_PAUSE_S", 600)


@contextlib.contextmanager
def poster(url: str, **environment: str) -> Iterator[Poster]:
    made = Poster(Target.make(url, {OTLP + name: value for name, value in environment.items()}))
    try:
        yield made
    finally:
        made.close()
    assert made._connection is None


def test_one_connection_is_kept(collector: Collector) -> None:
    with poster(collector.url) as mine:
        for _ in range(5):
            assert mine.post(BODY) == b""
    assert (collector.connections, len(collector.spans)) == (1, 5)
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    assert collector.headers[0]["user-agent"].startswith("fieldpost/")
    assert collector.headers[0]["content-encoding"] is None


@pytest.mark.parametrize("status", [200, 204])
def test_a_collector_may_close_each_connection(collector: Collector, status: int) -> None:
    collector.keeps, collector.status = False, status
    collector.answer = b"" if status == 204 else collector.answer
    with poster(collector.url) as mine:
        for _ in range(3):
            mine.post(BODY)
    assert (len(collector.paths), collector.connections) == (3, 3)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_what_is_sent_may_be_compressed(collector: Collector, compression: str) -> None:
    with poster(collector.url, COMPRESSION=compression) as mine:
        mine.post(BODY)
        mine.post(BODY)
    assert collector.headers[1]["content-encoding"] == compression
    assert [span.name for span in collector.spans] == ["a", "a"]


def test_who_asks_is_told(collector: Collector) -> None:
    url = collector.url.replace("//", "//me:p%40ss@") + "/a?b=c"
    with poster(url, HEADERS="x-scope=für,authorization=no") as mine:
        mine.post(BODY)
    assert collector.paths == ["/a?b=c"]
    assert collector.headers[0]["authorization"] == "Basic bWU6cEBzcw=="
    assert collector.headers[0]["x-scope"].encode("latin-1") == "für".encode()
    assert collector.headers[0]["host"] == f"127.0.0.1:{collector.port}"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_tried_again(collector: Collector, status: int) -> None:
    collector.statuses = [status] * 3
    with poster(collector.url) as mine:
        mine.post(BODY)
    assert (len(collector.paths), len(collector.spans), collector.connections) == (4, 1, 1)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 500, 501])
def test_what_will_not_pass_is_not(collector: Collector, status: int) -> None:
    collector.statuses = [status]
    with poster(collector.url, HEADERS="authorization=hunter2") as mine:
        with pytest.raises(SendError, match=f"^{status} ") as caught:
            mine.post(BODY)
        assert "hunter2" not in repr(caught.value)
        mine.post(BODY)
    assert (len(collector.paths), len(collector.spans)) == (2, 1)


def test_a_collector_says_when_to_come_again(collector: Collector) -> None:
    collector.statuses, collector.answered["retry-after"] = [503], "1"
    begun = time.monotonic()
    with poster(collector.url) as mine:
        mine.post(BODY)
    assert time.monotonic() - begun >= 1
    assert len(collector.spans) == 1


def test_one_that_says_too_late_is_not_waited_for(collector: Collector) -> None:
    collector.statuses, collector.answered["retry-after"] = [429], "3600"
    begun = time.monotonic()
    with poster(collector.url) as mine, pytest.raises(SendError, match=r"^429 Too Many Requests$"):
        mine.post(BODY)
    assert time.monotonic() - begun < 5
    assert len(collector.paths) == 1


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("0", 0.01, 0.01),
        ("7", 7, 7),
        ("9" * 400, 3600, 3600),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.01, 0.01),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 0.01, 0.01),
    ],
)
def test_when_to_come_again(value: str, least: float, most: float) -> None:
    seconds = retry_after_s(value)
    assert seconds is not None
    assert least <= seconds <= most


def test_when_to_come_again_may_be_a_date() -> None:
    date = datetime.now(UTC) + timedelta(seconds=60)
    assert 30 < (retry_after_s(format_datetime(date, usegmt=True)) or 0) < 61


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "nan", "²", "Sun, 99 Nov 1994"])
def test_when_to_come_again_is_not_said(value: str) -> None:
    assert retry_after_s(value) is None


def test_a_collector_that_is_down_is_waited_for_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    begun = time.monotonic()
    with (
        poster(f"http://127.0.0.1:{port}", TIMEOUT="0.3") as mine,
        pytest.raises(SendError, match=r"Connection refused|no answer in time"),
    ):
        mine.post(BODY)
    assert time.monotonic() - begun < 5


Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def peer(*talks: Talk) -> Iterator[str]:
    """Something that takes one connection for each talk; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            for talk in talks:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    talk(connection)
            over.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(20)
        assert over.is_set()


def read(connection: socket.socket) -> None:
    data = b""
    while not data.endswith(BODY):
        part = connection.recv(65536)
        assert part, "the client has gone"
        data += part


def answer(text: bytes = b"content-length: 0\r\n\r\n", more: Any = None) -> Talk:
    def talk(connection: socket.socket) -> None:
        read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + text)
        if more:
            more(connection)

    return talk


@pytest.mark.usefixtures("once")
def test_a_kept_connection_that_was_closed_is_no_failure() -> None:
    with peer(answer(), answer(), answer()) as url, poster(url) as mine:
        for _ in range(3):
            mine.post(BODY)


def test_a_connection_that_breaks_is_tried_again() -> None:
    with peer(lambda _: None, read, answer()) as url, poster(url) as mine:
        mine.post(BODY)


@pytest.mark.parametrize(
    "text",
    [
        b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"connection: close\r\n\r\nab",
        b"content-length: 2\r\n\r\nab",
    ],
    ids=["chunked", "closed", "length"],
)
def test_answers_of_any_framing(text: bytes) -> None:
    text = b"content-type: application/x-protobuf\r\n" + text
    with peer(answer(text)) as url, poster(url) as mine:
        assert mine.post(BODY) == b"ab"


def test_an_endless_answer_is_cut_off() -> None:
    def endless(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x" * 65536)

    text = b"content-type: application/x-protobuf\r\n\r\n"
    with peer(answer(text, endless)) as url, poster(url) as mine:
        assert len(mine.post(BODY)) == 1 << 20


def drip(connection: socket.socket) -> None:
    read(connection)
    for byte in b"HTTP/1.1 200 OK\r\nx-slow: " + b"s" * 10_000:
        connection.sendall(bytes([byte]))
        time.sleep(0.01)


def hang(connection: socket.socket) -> None:
    read(connection)
    while connection.recv(1):
        pass


@pytest.mark.parametrize("talk", [drip, hang])
def test_a_slow_collector_has_no_more_than_the_timeout(talk: Talk) -> None:
    begun = time.monotonic()
    with peer(talk) as url, poster(url, TIMEOUT="0.3") as mine:
        with pytest.raises(SendError, match=r"^no answer in time$"):
            mine.post(BODY)
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("text", [b"nonsense\r\n\r\n", b"HTTP/1.1 hunter2\r\n\r\n"])
@pytest.mark.usefixtures("once")
def test_a_peer_that_is_no_collector_is_said(text: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        read(connection)
        connection.sendall(text)

    with peer(talk) as url, poster(url) as mine:
        with pytest.raises(SendError) as caught:
            mine.post(BODY)
        assert "hunter2" not in str(caught.value)


def test_what_hangs_is_interrupted() -> None:
    asked = threading.Event()

    def talk(connection: socket.socket) -> None:
        read(connection)
        asked.set()
        while connection.recv(1):
            pass

    with peer(talk) as url:
        mine = Poster(Target.make(url, {OTLP + "TIMEOUT": "50"}))
        thread, errors = _in_thread(mine)
        assert asked.wait(20)
        mine.close()
        thread.join(5)
        assert not thread.is_alive()
    assert isinstance(errors[0], SendError)
    assert mine._connection is None
    with pytest.raises(SendError, match=r"^the server ends$"):
        mine.post(BODY)


def test_what_waits_is_interrupted(collector: Collector) -> None:
    collector.status, collector.answered["retry-after"] = 503, "9"
    mine = Poster(Target.make(collector.url, {}))
    thread, errors = _in_thread(mine)
    until(lambda: len(collector.paths) == 1)
    mine.close()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(errors[0], SendError)


def _in_thread(mine: Poster) -> tuple[threading.Thread, list[Exception]]:
    errors: list[Exception] = []

    def post() -> None:
        try:
            mine.post(BODY)
        except SendError as error:
            errors.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    return thread, errors


class Certificates:
    """Files for a collector, and for a client."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.ca = str(self.authority.write(folder / "ca.pem"))
        self.server = self.authority.issue(folder, "server")
        self.client = self.authority.issue(folder, "client")

    def context(self, *, both: bool = False) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(*self.server)
        if both:
            made.load_verify_locations(self.ca)
            made.verify_mode = ssl.CERT_REQUIRED
        return made


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def test_a_collector_with_tls(certificates: Certificates) -> None:
    with (
        Collector(certificates.context()) as collector,
        poster(collector.url, CERTIFICATE=certificates.ca) as mine,
    ):
        mine.post(BODY)
        mine.post(BODY)
        assert (len(collector.spans), collector.connections) == (2, 1)


def test_a_collector_that_nobody_vouches_for(certificates: Certificates) -> None:
    begun = time.monotonic()
    with Collector(certificates.context()) as collector, poster(collector.url) as mine:
        with pytest.raises(SendError, match=r"^its certificate is not valid: "):
            mine.post(BODY)
        assert collector.spans == []
    assert time.monotonic() - begun < 8


def test_a_collector_that_wants_to_know_who_sends(certificates: Certificates) -> None:
    cert, key = map(str, certificates.client)
    with Collector(certificates.context(both=True)) as collector:
        given = {"CERTIFICATE": certificates.ca, "CLIENT_CERTIFICATE": cert, "CLIENT_KEY": key}
        with poster(collector.url, **given) as mine:
            mine.post(BODY)
        assert len(collector.spans) == 1
        with (
            poster(collector.url, CERTIFICATE=certificates.ca, TIMEOUT="0.3") as mine,
            pytest.raises(SendError),
        ):
            mine.post(BODY)
        assert len(collector.spans) == 1


def test_one_file_may_hold_certificate_and_key(certificates: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in certificates.client))
    with Collector(certificates.context(both=True)) as collector:
        given = {"CERTIFICATE": certificates.ca, "CLIENT_CERTIFICATE": str(both)}
        with poster(collector.url, **given) as mine:
            mine.post(BODY)
        assert len(collector.spans) == 1


def test_files_that_change_count_for_the_next_connection(
    certificates: Certificates, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    ca = Path(Authority("other").write(tmp_path / "theirs.pem"))
    with (
        Collector(certificates.context()) as collector,
        poster(collector.url, CERTIFICATE=str(ca)) as mine,
    ):
        with pytest.raises(SendError, match="certificate"):
            mine.post(BODY)
        ca.write_text("nonsense")
        with pytest.raises(SendError, match=r"theirs\.pem"):
            mine.post(BODY)
        ca.unlink()
        with pytest.raises(SendError, match="No such file"):
            mine.post(BODY)
        ca.write_bytes(Path(certificates.ca).read_bytes())
        mine.post(BODY)
        assert len(collector.spans) == 1


def test_plain_http_wants_no_files() -> None:
    Poster(Target.make("http://c", {OTLP + "CERTIFICATE": "/none"})).close()


def test_a_collector_behind_a_proxy(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", collector.url.replace("//", "//me:hunter2@"))
    with poster("http://elsewhere.example:4318") as mine:
        mine.post(BODY)
        mine.post(BODY)
    assert collector.paths == ["http://elsewhere.example:4318/v1/traces"] * 2
    assert collector.headers[0]["host"] == "elsewhere.example:4318"
    assert collector.headers[0]["proxy-authorization"] == "Basic bWU6aHVudGVyMg=="
    assert collector.connections == 1


def test_a_collector_with_tls_behind_a_proxy(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[bytes] = []
    with Collector(certificates.context()) as collector:

        def tunnel(near: socket.socket) -> None:
            heads.append(near.recv(65536))
            far = socket.create_connection(("127.0.0.1", collector.port))
            with far:
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(far, near))
                back.start()
                _pump(near, far)
                back.join()

        with peer(tunnel) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.replace("//", "//me:hunter2@"))
            with poster("https://localhost:4318", CERTIFICATE=certificates.ca) as mine:
                mine.post(BODY)
        assert len(collector.spans) == 1
    assert heads[0].startswith(b"CONNECT localhost:4318 HTTP/1.")
    assert b"Basic bWU6aHVudGVyMg==" in heads[0]
    assert "authorization" not in collector.headers[0]


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.usefixtures("once")
def test_a_proxy_that_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 407 hunter2\r\ncontent-length: 0\r\n\r\n")

    with peer(refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        with poster("https://c") as mine, pytest.raises(SendError) as caught:
            mine.post(BODY)
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("once")
def test_a_proxy_of_another_kind_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://me:hunter2@p")
    with poster("http://c") as mine, pytest.raises(SendError) as caught:
        mine.post(BODY)
    assert str(caught.value) == "its proxy is none of HTTP"
