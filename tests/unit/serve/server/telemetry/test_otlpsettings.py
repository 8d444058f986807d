"""The endpoint and OpenTelemetry's environment variables."""

from __future__ import annotations

import logging

import pytest

from scoring.errors import UsageError
from serve.server.settings import ServerSettings
from serve.server.telemetry.otlpsettings import Target, resource_attributes
from serve.server.telemetry.telemetry import Telemetry

BOTH = "OTEL_EXPORTER_OTLP_"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_"


def made(endpoint: str = "http://c:4318", **environment: str) -> Target:
    return Target.make(endpoint, environment)


@pytest.mark.parametrize(
    ("given", "shown", "path"),
    [
        ("http://c:4318", "http://c:4318/v1/traces", "/v1/traces"),
        ("https://c/", "https://c:443/v1/traces", "/v1/traces"),
        ("http://c", "http://c:80/v1/traces", "/v1/traces"),
        ("http://c:4318/otlp/v1/traces", "http://c:4318/otlp/v1/traces", "/otlp/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces", "/v1/traces"),
        ("http://c?key=k", "http://c:80/v1/traces", "/v1/traces?key=k"),
        ("http://c/a b/für?x=1&y=%20", "http://c:80/a%20b/f%C3%BCr", "/a%20b/f%C3%BCr?x=1&y=%20"),
    ],
)
def test_the_endpoint_may_leave_the_path_out(given: str, shown: str, path: str) -> None:
    target = made(given)
    assert (target.shown, target.path) == (shown, path)


@pytest.mark.parametrize(
    "given",
    ["c:4318", "grpc://u:hunter2@c:4317", "http://", "http://u:hunter2@c:x", "http://[", "/v1"],
)
def test_an_endpoint_that_is_none_is_said(given: str) -> None:
    with pytest.raises(UsageError) as caught:
        Telemetry.from_settings(ServerSettings(traces=given), lambda *_: None, {})
    assert caught.value.where == "traces"
    assert "hunter2" not in str(caught.value.to_dict())


def test_a_name_and_a_password_become_a_header_and_are_never_shown() -> None:
    target = made("https://me:p%40ss%3A@c:4318/x?key=hunter2", **{BOTH + "HEADERS": "a=hunter2"})
    assert target.headers["authorization"] == "Basic bWU6cEBzczo="
    for secret in ("p%40ss", "p@ss", "bWU6", "hunter2"):
        assert secret not in repr(target)
        assert secret not in target.shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api-key=k1", {"api-key": "k1"}),
        ("Authorization=Basic%20dTpw, X = a=b ", {"authorization": "Basic dTpw", "x": "a=b"}),
        ("authorization=Bearer not encoded,,", {"authorization": "Bearer not encoded"}),
        ("x=f%C3%BCr", {"x": "für"}),
        ("user-agent=mine", {"user-agent": "mine"}),
        ("content-type=text/plain,Content-Length=1,x=1", {"x": "1"}),
        ("", {}),
    ],
)
def test_headers(text: str, expected: dict[str, str]) -> None:
    headers = dict(made(**{BOTH + "HEADERS": text}).headers)
    agent = headers.pop("user-agent")
    assert agent.startswith("fieldpost/") or expected.pop("user-agent") == agent
    assert headers == expected


@pytest.mark.parametrize("text", ["hunter2", "=hunter2", "a b=hunter2", "a=hunter2%0d%0ab: c"])
def test_a_header_that_is_none_is_left_out_and_not_shown(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        headers = made(**{TRACES + "HEADERS": f"x=1,{text}"}).headers
    assert set(headers) == {"user-agent", "x"}
    (record,) = caplog.records
    assert TRACES + "HEADERS" in record.getMessage()
    assert "hunter2" not in record.getMessage()


def test_what_is_set_for_traces_goes_before_what_is_set_for_all() -> None:
    names = ("HEADERS", "CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    general = {BOTH + name: f"general={name}" for name in names}
    general |= {BOTH + "COMPRESSION": "gzip", BOTH + "TIMEOUT": "3"}
    target = made(**general)
    assert target.headers["general"] == "HEADERS"
    assert target.certificate == "general=CERTIFICATE"
    assert target.client_certificate == "general=CLIENT_CERTIFICATE"
    assert target.client_key == "general=CLIENT_KEY"
    assert (target.compression, target.timeout_s) == ("gzip", 3)
    own = {
        name.replace(BOTH, TRACES): value.replace("general", "own")
        for name, value in general.items()
    }
    target = made(**general, **own | {TRACES + "COMPRESSION": "none", TRACES + "TIMEOUT": "4"})
    assert target.headers["own"] == "HEADERS"
    assert "general" not in target.headers
    assert target.certificate == "own=CERTIFICATE"
    assert (target.compression, target.timeout_s) == ("none", 4)
    empty = {TRACES + "COMPRESSION": "", TRACES + "TIMEOUT": " "}
    assert made(**general, **empty).compression == "gzip"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0.5", 0.5), ("10000", 60), ("inf", 60)], ids=["part", "many", "endless"]
)
def test_a_timeout_is_in_seconds_and_not_endless(text: str, seconds: float) -> None:
    assert made(**{BOTH + "TIMEOUT": text}).timeout_s == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("TIMEOUT", text) for text in ("10s", "0", "-1", "nan")), ("COMPRESSION", "zstd")],
)
def test_what_is_not_valid_is_warned_of(
    name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert made(**{BOTH + name: value}) == made()
    assert [BOTH + name in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"service.name": "set"}),
        ({"OTEL_SERVICE_NAME": "n"}, {"service.name": "n"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=r"}, {"service.name": "r"}),
        (
            {
                "OTEL_RESOURCE_ATTRIBUTES": "service.name=r, a = b%2Cc ,d=e=f",
                "OTEL_SERVICE_NAME": "n",
            },
            {"service.name": "n", "a": "b,c", "d": "e=f"},
        ),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "telemetry.sdk.name=x"},
            {"telemetry.sdk.name": "x", "service.name": "set"},
        ),
    ],
)
def test_who_makes_the_spans(environment: dict[str, str], expected: dict[str, str]) -> None:
    known = resource_attributes(environment, "set")
    assert known.items() >= expected.items()
    assert known["telemetry.sdk.language"] == "python"
    assert len(known) == len(expected.keys() | {"telemetry.sdk.name"}) + 2


def test_a_part_that_is_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        known = resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": "a,b=1"}, "set")
    assert "b" in known
    assert "a" not in known
    assert len(caplog.records) == 1
