"""Every error has its status, and its body holds what a sender may see."""

from __future__ import annotations

import json

import pytest

from scoring.errors import (
    FieldpostError,
    InputError,
    OverloadedError,
    RateLimitedError,
    ScoringFailedError,
    UnauthorizedError,
    WrongTypeError,
)
from serve.server import errors as http_errors
from serve.server.errors import MethodNotAllowedError
from serve.server.status import (
    STATUS,
    error_response,
    internal_error_response,
    sentence,
    status_of,
)


def tree(root: type[FieldpostError]) -> list[type[FieldpostError]]:
    ours = [kind for kind in root.__subclasses__() if kind.__module__.split(".")[0] != "tests"]
    return [root, *(inner for kind in ours for inner in tree(kind))]


def in_tree(kind: type[FieldpostError]) -> bool:
    return kind.__module__ in {"scoring.errors", "scoring.httperrors", http_errors.__name__}


@pytest.mark.parametrize("kind", [k for k in tree(FieldpostError) if in_tree(k)])
def test_every_error_is_mapped_itself(kind: type[FieldpostError]) -> None:
    assert kind in STATUS
    assert 400 <= STATUS[kind] < 600


@pytest.mark.parametrize("kind", [k for k in tree(InputError) if in_tree(k)])
def test_bad_input_is_the_senders_fault(kind: type[FieldpostError]) -> None:
    assert 400 <= STATUS[kind] < 500


def test_codes_are_not_shared_by_two_errors() -> None:
    kinds = set(STATUS)
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_a_class_that_is_not_in_the_table_has_its_ancestors_status() -> None:
    class ForeignError(WrongTypeError):
        code = "foreign"

    assert status_of(ForeignError("no")) == 400


def test_the_body_says_code_message_place_and_hint() -> None:
    error = WrongTypeError("It is wrong.", hint="Do it right.", where="data[0]", detail="secret")
    response = error_response(error)
    assert response.status == 400
    assert json.loads(bytes(response.body)) == {  # type: ignore[arg-type]
        "error": {
            "code": "wrong_type",
            "message": "It is wrong.",
            "where": "data[0]",
            "hint": "Do it right.",
        }
    }


def test_tracebacks_stay_inside() -> None:
    response = error_response(ScoringFailedError("It failed.", detail="Traceback: a secret"))
    assert response.status == 500
    assert b"secret" not in bytes(response.body)  # type: ignore[arg-type]
    assert b"Traceback" not in bytes(internal_error_response().body)  # type: ignore[arg-type]


def test_retry_and_allow_are_told_in_headers() -> None:
    assert ("retry-after", "1") in error_response(OverloadedError("full")).headers
    refused = error_response(MethodNotAllowedError("no", allow=("GET", "POST")))
    assert ("allow", "GET, POST") in refused.headers


def test_limits_and_challenges_are_told_in_headers() -> None:
    limited = RateLimitedError("slower")
    limited.retry_after_s = 7
    assert ("retry-after", "7") in error_response(limited).headers
    unknown = UnauthorizedError("who?")
    unknown.challenges = ("Bearer", "ApiKey")
    headers = error_response(unknown).headers
    assert [value for name, value in headers if name == "www-authenticate"] == ["Bearer", "ApiKey"]


def test_half_characters_in_a_message_still_make_an_answer() -> None:
    response = error_response(WrongTypeError("It is '\ud800'."))
    assert json.loads(bytes(response.body))["error"]["message"] == "It is '?'."  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "hint", "text"),
    [
        ("'x' is not found", "See the list.", "'x' is not found. See the list."),
        ("It is not found.", "See the list.", "It is not found. See the list."),
        ("Is it?", "No.", "Is it? No."),
        ("'x' is not found", "", "'x' is not found"),
        ("half: \ud800", "", "half: ?"),
    ],
    ids=["no full stop", "full stop", "question", "no hint", "half a character"],
)
def test_an_error_in_one_text(message: str, hint: str, text: str) -> None:
    assert sentence(InputError(message, hint=hint)) == text
