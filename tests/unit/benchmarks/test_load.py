"""What wrk and h2load print is read strictly: errors are no figures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.load import LoadError, parse_h2load, parse_wrk, write_script
from benchmarks.payloads import score_ask

WRK = """Running 3s test @ http://127.0.0.1:9301/score
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.47ms    4.66ms  48.15ms   93.85%
    Req/Sec     4.35k     0.89k    5.43k    83.33%
  Latency Distribution
     50%  312.00us
     75%    3.40ms
     90%    4.10ms
     99%    1.20s
  13075 requests in 3.03s, 3.90MB read
Requests/sec:   4320.27
Transfer/sec:      1.29MB
"""
H2LOAD = """finished in 2.00s, 3660.00 req/s, 510.47KB/s
requests: 7320 total, 7336 started, 7320 done, 7320 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 7320 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1020.95KB (1045450) total, 21.52KB (22035) headers (space savings 96.28%), 600.47KB (614880) data
"""  # noqa: E501


def test_wrk_is_read() -> None:
    measured = parse_wrk(WRK)
    assert (measured.rate, measured.count) == (4320.27, 13075)
    assert measured.p50 == pytest.approx(312e-6)
    assert measured.p99 == 1.2


def test_wrk_without_latencies_has_none() -> None:
    assert math.isnan(parse_wrk(WRK.replace("50%  312.00us", "")).p50)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("  Non-2xx or 3xx responses: 49\n", "49"),
        ("  Socket errors: connect 0, read 16, write 0, timeout 0\n", "read 16"),
    ],
    ids=["status", "sockets"],
)
def test_errors_that_wrk_saw_are_errors(line: str, told: str) -> None:
    with pytest.raises(LoadError, match=told):
        parse_wrk(WRK + line)


@pytest.mark.parametrize("text", ["", "unable to connect", WRK.replace("13075", "0")])
def test_wrk_without_answers_is_an_error(text: str) -> None:
    with pytest.raises(LoadError, match="no answer"):
        parse_wrk(text)


def test_h2load_is_read() -> None:
    measured = parse_h2load(H2LOAD, least_bytes=30)
    assert (measured.rate, measured.count) == (3660.0, 7320)


def test_calls_without_a_message_are_errors_to_grpc() -> None:
    with pytest.raises(LoadError, match="answered with an error"):
        parse_h2load(H2LOAD.replace("(614880) data", "(0) data"), least_bytes=30)


def test_failed_calls_are_errors() -> None:
    with pytest.raises(LoadError, match="3 of 7320"):
        parse_h2load(H2LOAD.replace("0 failed", "3 failed"))


def test_h2load_without_answers_is_an_error() -> None:
    with pytest.raises(LoadError, match="no answer"):
        parse_h2load("could not connect")


def test_a_script_holds_the_request(tmp_path: Path) -> None:
    ask = score_ask().with_headers({"Authorization": "Bearer abc"})
    text = write_script(ask, tmp_path).read_text()
    assert 'wrk.headers["Authorization"] = "Bearer abc"' in text
    assert (tmp_path / "score.body").read_bytes() == ask.body
