from __future__ import annotations

import pytest

from scoring.azureml import state
from scoring.azureml.aml_response import AMLResponse


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "strict", True)


def test_bytes_pass_and_headers_with_commas_repeat() -> None:
    response = AMLResponse(b"\xff", 201, {"Content-Type": "image/png", "X-Many": "a, b"})
    assert (response.status_code, response.data) == (201, b"\xff")
    assert response.headers.getlist("X-Many") == ["a", "b"]
    assert response.headers.getlist("Content-Type") == ["image/png"]
    assert response.headers["x-ms-run-function-failed"] == "False"


def test_none_is_an_empty_object_and_json_is_encoded() -> None:
    assert AMLResponse(None, 200).json == {}
    assert AMLResponse([1, "two"], 200, json_str=True).json == [1, "two"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Disposition", 'attachment; filename="a,b.csv"'),
        ("Set-Cookie", "k=v; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
    ],
)
def test_a_comma_within_one_value_does_not_split_it(name: str, value: str) -> None:
    assert AMLResponse("", 200, {name: value}).headers.getlist(name) == [value]


@pytest.mark.usefixtures("strict")
def test_strict_splits_every_value() -> None:
    response = AMLResponse("", 200, {"Set-Cookie": "k=v; Expires=Wed, 21 Oct"})
    assert response.headers.getlist("Set-Cookie") == ["k=v; Expires=Wed", "21 Oct"]


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
def test_an_own_type_replaces_that_of_json(name: str) -> None:
    response = AMLResponse({}, 200, {name: "application/problem+json"}, json_str=True)
    assert response.headers.getlist("Content-Type") == ["application/problem+json"]
