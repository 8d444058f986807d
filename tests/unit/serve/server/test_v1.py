"""KServe's first protocol against a live server: requests, answers, errors in its own form."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.server import Client, LiveServer, Sums, get, post, serve_models
from tests.support.small_models import Classifier, Columns

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = {"name": "a", "note": None, "count": 1, "size": 0.5, "known": True}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    models = {"sums": Sums(), "sides": Classifier(), "columns": Columns()}
    with serve_models(models) as running:
        yield running


def ask(server: LiveServer, path: str, body: Any, *headers: str) -> tuple[int, Any]:
    with Client(server.port) as client:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        client.send(post(data, path, *headers))
        answer = client.read()
    assert answer.headers["content-type"] == "application/json"
    return answer.status, json.loads(answer.body)


def look(server: LiveServer, path: str, method: str = "GET") -> tuple[int, Any]:
    with Client(server.port) as client:
        client.send(get(path, method=method))
        answer = client.read(head_only=method == "HEAD")
    return answer.status, json.loads(answer.body) if answer.body else None


def test_a_classifiers_predictions_are_its_labels(server: LiveServer) -> None:
    body = {"instances": [[1, 2], [2, 1]]}
    assert ask(server, "/v1/models/sides:predict", body) == (
        200,
        {"predictions": ["right", "left"]},
    )


def test_several_outputs_are_an_object_for_each_row(server: LiveServer) -> None:
    body = {"instances": [[1, 2, 3], [1, 1, 1]]}
    assert ask(server, "/v1/models/sums:predict", body) == (
        200,
        {"predictions": [{"total": 6, "twice": [2, 4, 6]}, {"total": 3, "twice": [2, 2, 2]}]},
    )


@pytest.mark.parametrize(
    "instances",
    [[[1, 2, 3]], [{"a": 1, "b": 2, "c": 3}], [{"c": 3, "a": 1, "b": 2}], [{"x": [1, 2, 3]}]],
    ids=["rows", "features", "other-order", "input-name"],
)
def test_rows_come_in_every_form(server: LiveServer, instances: list[Any]) -> None:
    status, answer = ask(server, "/v1/models/sums:predict", {"instances": instances})
    assert (status, answer["predictions"][0]["total"]) == (200, 6)


@pytest.mark.parametrize("inputs", [[[1, 2, 3]], {"x": [[1, 2, 3]]}], ids=["list", "named"])
def test_columns_are_answered_by_columns(server: LiveServer, inputs: Any) -> None:
    assert ask(server, "/v1/models/sums:predict", {"inputs": inputs}) == (
        200,
        {"outputs": {"total": [6], "twice": [[2, 4, 6]]}},
    )


def test_strings_may_come_as_base64(server: LiveServer) -> None:
    row = ROW | {"name": {"b64": base64.b64encode("zürich".encode()).decode()}}
    status, answer = ask(server, "/v1/models/columns:predict", {"instances": [row]})
    assert (status, answer) == (200, {"predictions": ["zürich|None|1|0.5|True"]})


@pytest.mark.parametrize("text", ["!", "/w==", 7], ids=["no-base64", "no-utf8", "no-string"])
def test_wrong_base64_is_told_with_its_place(server: LiveServer, text: Any) -> None:
    row = ROW | {"name": {"b64": text}}
    status, answer = ask(server, "/v1/models/columns:predict", {"instances": [ROW, row]})
    assert status == 400
    assert "instances[1].name.b64" in answer["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"[[1, 2, 3]]", "not an object"),
        ({}, "neither"),
        ({"data": [[1, 2, 3]]}, "neither"),
        ({"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "both"),
        ({"instances": []}, "instances is empty"),
        ({"instances": [[1, 2]]}, "instances[0]"),
        ({"instances": [[1, 2, "x"]]}, "instances[0][2]"),
        ({"instances": 7}, "not a list"),
        ({"instances": [{"b64": "AA=="}]}, "columns"),
    ],
)
def test_bad_bodies_are_the_senders_fault(server: LiveServer, body: Any, said: str) -> None:
    status, answer = ask(server, "/v1/models/sums:predict", body)
    assert status == 400
    assert answer.keys() == {"error"}
    assert said in answer["error"]


def test_other_keys_of_tensorflows_clients_are_passed_over(server: LiveServer) -> None:
    body = {"signature_name": "serving_default", "instances": [[1, 2]]}
    assert ask(server, "/v1/models/sides:predict", body)[0] == 200


def test_versions_can_be_named(server: LiveServer) -> None:
    body = {"instances": [[1, 2]]}
    assert ask(server, "/v1/models/sides/versions/1:predict", body)[0] == 200
    status, answer = ask(server, "/v1/models/sides/versions/9:predict", body)
    assert status == 404
    assert "version 9" in answer["error"]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/models/none:predict", "POST", 404),
        ("/v1/models/none", "GET", 404),
        ("/v1/models/sums:explain", "POST", 404),
        ("/v1/models/sums/labels/x", "GET", 404),
        ("/v1/models/sums/versions/1/", "GET", 404),
        ("/v1/models/", "GET", 404),
        ("/v1/models/sums:predict", "GET", 405),
        ("/v1/models/sums", "POST", 405),
    ],
)
def test_wrong_paths_are_told_in_the_protocols_form(
    server: LiveServer, path: str, method: str, status: int
) -> None:
    found, answer = look(server, path, method)
    assert found == status
    assert isinstance(answer["error"], str)


def test_another_content_type_is_refused(server: LiveServer) -> None:
    status, answer = ask(server, "/v1/models/sums:predict", b"a", "Content-Type: text/csv")
    assert status == 415
    assert "text/csv" in answer["error"]


def test_models_are_listed_with_their_state(server: LiveServer) -> None:
    assert look(server, "/v1/models") == (200, {"models": ["sums", "sides", "columns"]})
    assert look(server, "/v1/models/sums") == (200, {"name": "sums", "ready": True})
    assert look(server, "/v1/models/sums", "HEAD") == (200, None)


def test_a_model_that_was_unloaded_says_so_and_comes_back() -> None:
    with serve_models({"sums": Sums()}) as server:
        finished: list[BaseException | None] = []
        server.call(lambda: server.repository.unload("sums", finished.append))
        server.until(lambda: bool(finished))
        status, answer = look(server, "/v1/models/sums")
        assert (status, answer["ready"]) == (503, False)
        status, answer = ask(server, "/v1/models/sums:predict", {"instances": [[1, 2, 3]]})
        assert (status, type(answer["error"])) == (503, str)
        server.call(lambda: server.repository.load("sums", finished.append))
        server.until(lambda: len(finished) == 2)
        assert ask(server, "/v1/models/sums:predict", {"instances": [[1, 2, 3]]})[0] == 200


def test_a_model_that_fails_is_told_without_its_traceback() -> None:
    model = Sums()
    with serve_models({"sums": model}) as server:
        model.error = RuntimeError("a secret")
        for path in ("/v1/models/sums:predict", "/v1/models/sums:predict?x=1"):
            status, answer = ask(server, path, {"instances": [[1, 2, 3]]})
            assert status == 500
            assert "secret" not in answer["error"]


@pytest.mark.parametrize("path", ["/v1/models/sums:predict", "/v1/models/sums:predict?x=1"])
def test_both_ways_through_a_connection_answer_alike(server: LiveServer, path: str) -> None:
    good, bad = {"instances": [[1, 2, 3]]}, {"instances": [[1, 2]]}
    assert ask(server, path, good) == ask(server, "/v1/models/sums:predict", good)
    assert ask(server, path, bad) == ask(server, "/v1/models/sums:predict", bad)


def test_half_characters_in_a_message_still_make_an_answer(server: LiveServer) -> None:
    status, answer = ask(server, "/v1/models/sums:predict", b'{"instances": [{"\\ud800": 1}]}')
    assert status == 400
    assert answer["error"]
