from __future__ import annotations

import pytest

from scoring.azureml.cors import CorsPolicy
from scoring.errors import EntryScriptError
from scoring.http import Request


def headers(policy: str, method: str = "POST", **sent: str) -> dict[str, str]:
    named = [(name.replace("_", "-"), value) for name, value in sent.items()]
    return dict(CorsPolicy(policy).headers(Request(method, "/score", headers=named)))


@pytest.mark.parametrize("origin", ["https://a.example", "HTTPS://A.example"])
def test_a_listed_origin_is_echoed(origin: str) -> None:
    found = headers("https://b.example, https://a.example", origin=origin)
    assert found == {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://a.example.evil", "null", "https://a"]
)
def test_any_other_origin_gets_nothing(origin: str) -> None:
    assert headers("https://a.example", origin=origin) == {}


def test_a_star_is_anyone() -> None:
    assert headers("*", origin="https://x")["Access-Control-Allow-Origin"] == "https://x"
    assert headers("*") == {"Access-Control-Allow-Origin": "*"}


def test_a_preflight_names_methods_and_asked_headers() -> None:
    found = headers(
        "https://a",
        "OPTIONS",
        origin="https://a",
        access_control_request_method="POST",
        access_control_request_headers="x-b, Content-Type",
    )
    assert found["Access-Control-Allow-Methods"] == "GET, POST"
    assert found["Access-Control-Allow-Headers"] == "Content-Type, x-b"


def test_a_preflight_for_another_method_gets_no_leave() -> None:
    found = headers("*", "OPTIONS", origin="https://a", access_control_request_method="PUT")
    assert "Access-Control-Allow-Methods" not in found


def test_a_broken_pattern_is_refused_at_start() -> None:
    with pytest.raises(EntryScriptError, match="regular expression"):
        CorsPolicy("https://(a")
