"""Lines of the access log."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import pytest

from scoring.errors import UsageError
from serve.server.telemetry.accesslog import AccessLog, blanked, quoted
from serve.server.telemetry.channel import Channel, Details
from serve.server.telemetry.context import Trace
from serve.server.telemetry.counters import Cells

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECRET = "hunter2"


def channel(protocol: str = "v2", model: str = "iris", version: str = "1") -> Channel:
    return Channel(Cells.in_memory(), (), protocol=protocol, model=model, version=version)


def lines(path: Path, *told: tuple[Channel, int, Details]) -> list[dict[str, Any]]:
    log = AccessLog.open(str(path))
    for known, status, details in told:
        ended = perf_counter()
        log.tell(known, status, ended - 0.001234, ended, 180, 33, details)
    log.close()
    assert (log.written, log.dropped) == (len(told), 0)
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def details(
    target: bytes = b"/score", headers: dict[str, str] | None = None, **more: Any
) -> Details:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return Details(b'"10.0.0.1:5000"', b"POST", target, pairs, **more)


def test_a_line_says_who_asked_what_and_how_it_went(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    headers = {
        "host": "x",
        "user-agent": "curl/8",
        "x-request-id": "r-1",
        "traceparent": PARENT.decode(),
    }
    (line,) = lines(tmp_path / "log", (channel(), 200, details(headers=headers, principal="k1")))
    stamp = line.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert abs((datetime.fromisoformat(stamp) - before).total_seconds()) < 10
    assert line.pop("duration_ms") == pytest.approx(1.234, abs=0.002)
    assert line == {
        "client": "10.0.0.1:5000",
        "method": "POST",
        "path": "/score",
        "protocol": "v2",
        "model": "iris",
        "version": "1",
        "status": 200,
        "bytes_in": 180,
        "bytes_out": 33,
        "user_agent": "curl/8",
        "principal": "k1",
        "request_id": "r-1",
        "trace_id": PARENT.decode().split("-")[1],
    }


def test_what_is_not_known_is_not_there(tmp_path: Path) -> None:
    (line,) = lines(tmp_path / "log", (channel("http", "", ""), 404, details()))
    assert {"model", "version", "user_agent", "principal", "request_id", "error"}.isdisjoint(line)


def test_an_error_has_its_code_and_grpc_the_name_of_its_status(tmp_path: Path) -> None:
    one, two = lines(
        tmp_path / "log",
        (channel(), 400, details(error="wrong_shape")),
        (channel("grpc"), 5, details(error="unknown_model")),
    )
    assert (one["status"], one["error"]) == (400, "wrong_shape")
    assert (two["status"], two["code"], two["error"]) == (5, "NOT_FOUND", "unknown_model")


def test_the_trace_is_the_one_that_was_begun(tmp_path: Path) -> None:
    trace, nobodys = Trace.begin(None, sampled=True), Trace.begin(None, sampled=False)
    one, two = lines(
        tmp_path / "log",
        (channel(), 200, details(trace=trace)),
        (channel(), 200, details(trace=nobodys)),
    )
    assert one["trace_id"] == f"{trace.trace_id:032x}"
    assert "trace_id" not in two


@pytest.mark.parametrize(
    "header",
    ["authorization", "x-api-key", "cookie", "proxy-authorization", "x-amz-security-token"],
)
def test_no_header_with_a_credential_is_looked_at(tmp_path: Path, header: str) -> None:
    lines(tmp_path / "log", (channel(), 200, details(headers={header: SECRET})))
    assert SECRET.encode() not in (tmp_path / "log").read_bytes()


@pytest.mark.parametrize(
    "target",
    [
        f"/score?api_key={SECRET}",
        f"/score?a=1&Token={SECRET}&b=2",
        f"/score?access_token={SECRET}",
        f"/score?%74oken={SECRET}",
        f"/score?my+password={SECRET}",
        f"/score?sig={SECRET}&se=2",
        f"/score?X-Amz-Signature={SECRET}",
        f"/score?client_secret={SECRET}",
        f"/score?code={SECRET}",
        f"http://user:{SECRET}@host/score?x=1",
        f"http://user:{SECRET}@host",
    ],
)
def test_secrets_in_a_target_are_blanked(tmp_path: Path, target: str) -> None:
    (line,) = lines(tmp_path / "log", (channel(), 200, details(target.encode())))
    assert SECRET not in orjson.dumps(line).decode()
    assert line["path"].startswith("/")


def test_the_rest_of_a_query_stays() -> None:
    assert blanked(b"/a?version=3&key=x&verbose") == b"/a?version=3&key=***&verbose"
    assert blanked(b"/a?design=x&monkeys") == b"/a?design=x&monkeys"
    assert blanked(b"/a?") == b"/a?"
    assert blanked(b"*") == b"*"


@pytest.mark.parametrize(
    "text",
    [b"", b"plain", b'a"b', b"back\\slash", b"\x00\x1f\x7f", b"\xff\xfe", "ü€😀".encode(), b"a\nb"],
)
def test_any_text_becomes_json(text: bytes) -> None:
    assert orjson.loads(quoted(text)) == text.decode("utf-8", "replace")


def test_a_line_cannot_be_forged(tmp_path: Path) -> None:
    evil = 'x","status":200}\n{"time":"forged'
    told = (channel(), 500, details(headers={"user-agent": evil, "x-request-id": evil}))
    (line,) = lines(tmp_path / "log", told)
    assert line["status"] == 500
    assert line["user_agent"] == line["request_id"] == evil


def test_what_clients_send_is_cut(tmp_path: Path) -> None:
    long = "x" * 8000
    told = details(f"/{long}".encode(), {"user-agent": long, "x-request-id": long})
    (line,) = lines(tmp_path / "log", (channel(), 200, told))
    assert len(orjson.dumps(line)) < 4096
    assert line["path"].endswith("...")


def test_what_is_remembered_is_bounded() -> None:
    class Nowhere:
        written = dropped = 0

        def put(self, lines: list[bytes]) -> None:
            pass

        def close(self) -> None:
            pass

    log = AccessLog(Nowhere())  # type: ignore[arg-type]
    for number in range(3000):
        told = details(f"/{number}".encode(), {"user-agent": str(number)})
        log.tell(channel(), 200, 0.0, 0.001, 1, 1, told)
    assert len(log._paths) <= 1024
    assert len(log._who) <= 1024
    assert len(log._lines) < 512
    log.close()


def test_the_clock_may_be_set_while_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AccessLog.open(str(tmp_path / "log"))
    real = time.time
    monkeypatch.setattr("serve.server.telemetry.accesslog.time.time", lambda: real() + 86_400)
    log.flush()
    now = perf_counter()
    log.tell(channel(), 200, now, now, 1, 1, details())
    log.close()
    line = orjson.loads((tmp_path / "log").read_bytes())
    later = datetime.fromisoformat(line["time"]) - datetime.fromtimestamp(real(), UTC)
    assert 86_000 < later.total_seconds() < 87_000


def test_milliseconds_never_leave_their_second(tmp_path: Path) -> None:
    log = AccessLog.open(str(tmp_path / "log"))
    log._offset = 0.0
    for now in (1.0, 1.9999999999, 1.0005, 2.0 - 2**-52, 1700000000.9999998):
        log.tell(channel(), 200, now, now, 1, 1, details())
    log.close()
    stamps = [orjson.loads(line)["time"] for line in (tmp_path / "log").read_bytes().splitlines()]
    ends = [".000", ".999", ".000", ".999", ".999"]
    assert [stamp[19:23] for stamp in stamps] == ends
    for stamp in stamps:
        assert re.fullmatch(r"[0-9T:-]{19}\.\d{3}Z", stamp)


def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        AccessLog.open(str(tmp_path / "no" / "log"))
    assert caught.value.where == "access_log"


def test_many_lines_go_in_batches_and_none_is_lost(tmp_path: Path) -> None:
    log = AccessLog.open(str(tmp_path / "log"))
    known, told = channel(), details()
    for number in range(5000):
        log.tell(known, 200, 0.0, 0.001, number, 1, told)
    log.close()
    numbers = [
        orjson.loads(line)["bytes_in"] for line in (tmp_path / "log").read_bytes().splitlines()
    ]
    assert numbers == list(range(5000))
    assert not log._file._thread.is_alive()
