"""Telemetry under whatever clients send, and whatever is counted."""

from __future__ import annotations

from time import perf_counter

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.server.settings import ServerSettings
from serve.server.telemetry import context, metrics
from serve.server.telemetry.accesslog import AccessLog, blanked, quoted
from serve.server.telemetry.channel import Channel, Details
from serve.server.telemetry.counters import Cells
from serve.server.telemetry.telemetry import Telemetry
from tests.support.telemetry import Scrape, scrape

NAMES = st.sampled_from(
    [b"user-agent", b"x-request-id", b"x-ms-request-id", b"traceparent", b"tracestate", b"host"]
)
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=6)
LABELS = st.text(max_size=12)


class Kept:
    """A file of lines in memory."""

    written = dropped = 0

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def put(self, lines: list[bytes]) -> None:
        self.lines += lines

    def close(self) -> None:
        """Nothing to close."""


@given(
    method=st.binary(max_size=10),
    target=st.binary(max_size=60),
    headers=HEADERS,
    principal=st.text(max_size=10),
    error=st.from_regex(r"[a-z_]{0,20}", fullmatch=True),
    model=LABELS,
    status=st.integers(0, 999),
    seconds=st.floats(0, 1e5),
    size=st.integers(0, 1 << 40),
)
def test_every_request_is_one_line_of_json(
    *,
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    principal: str,
    error: str,
    model: str,
    status: int,
    seconds: float,
    size: int,
) -> None:
    kept = Kept()
    log = AccessLog(kept)  # type: ignore[arg-type]
    channel = Channel(Cells.in_memory(), (), protocol="v2", model=model)
    details = Details(b'"1.2.3.4:5"', method, target, headers, principal, error)
    ended = perf_counter()
    log.tell(channel, status, ended - seconds, ended, size, size, details)
    log.close()
    (line,) = kept.lines
    assert line.count(b"\n") == 1
    document = orjson.loads(line)
    assert document["status"] == status
    assert document["bytes_in"] == document["bytes_out"] == size
    assert abs(document["duration_ms"] - seconds * 1000) < 0.01 + seconds * 1e-6
    assert document["method"] == method.decode("utf-8", "replace")


@given(st.binary(max_size=200))
def test_any_bytes_become_a_json_string(text: bytes) -> None:
    assert orjson.loads(quoted(text)) == text.decode("utf-8", "replace")


@given(
    before=st.binary(max_size=20).filter(lambda text: b"?" not in text),
    secret=st.from_regex(r"[A-Z0-9]{12,20}", fullmatch=True),
    name=st.sampled_from(["token", "api_key", "KEY", "Password", "sig", "x-auth", "session_id"]),
    after=st.lists(st.from_regex(r"[a-z]{1,5}=[a-z]{0,5}", fullmatch=True), max_size=3),
)
def test_no_secret_of_a_query_stays(
    before: bytes, secret: str, name: str, after: list[str]
) -> None:
    query = "&".join([f"{name}={secret}", *after]).encode()
    assert secret.encode() not in blanked(b"/" + before + b"?" + query)


@given(st.binary(max_size=70), st.binary(max_size=30))
def test_a_context_is_taken_or_left_and_never_an_error(parent: bytes, state: bytes) -> None:
    found = context.parse([(b"traceparent", parent), (b"tracestate", state)])
    assert found is None or (found.trace_id and found.span_id)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(LABELS, LABELS, st.sampled_from([200, 400, 503]), st.integers(0, 1 << 30)),
        max_size=20,
    )
)
def test_a_scrape_adds_up_whatever_the_names_are(told: list[tuple[str, str, int, int]]) -> None:
    telemetry = Telemetry.from_settings(ServerSettings(), lambda *_: None, {})
    for model, version, status, size in told:
        telemetry.channel("v2", model, version).answered(status, perf_counter(), size, 0)
    for kind in (metrics.TEXT, metrics.OPENMETRICS):
        page: Scrape = scrape(telemetry, kind)
        assert page("fieldpost_requests_total") == len(told)
        assert page("fieldpost_request_duration_seconds_count") == len(told)
        assert page("fieldpost_request_bytes_sum") == sum(size for *_, size in told)
    telemetry.close()
