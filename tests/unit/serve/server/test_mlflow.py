"""MLflow's routes against a live server: JSON in all its forms, CSV, errors in its own form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from scoring import __version__
from serve.server.mlflow import error_code
from tests.support.server import Answer, Client, LiveServer, Sums, get, post, serve_models
from tests.support.small_models import Classifier, Columns

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = "name,note,count,size,known\n"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serve_models({"sides": Classifier()}) as running:
        yield running


@pytest.fixture(scope="module")
def columns() -> Iterator[LiveServer]:
    with serve_models({"columns": Columns()}) as running:
        yield running


def send(server: LiveServer, body: bytes, kind: str = "application/json") -> Answer:
    with Client(server.port) as client:
        client.send(post(body, "/invocations", f"Content-Type: {kind}"))
        return client.read()


def ask(server: LiveServer, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    answer = send(server, body if isinstance(body, bytes) else json.dumps(body).encode(), kind)
    assert answer.headers["content-type"] == "application/json"
    return answer.status, json.loads(answer.body)


def csv(server: LiveServer, text: str | bytes, kind: str = "text/csv") -> tuple[int, Any]:
    return ask(server, text if isinstance(text, bytes) else text.encode(), kind)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["left", "right"], "data": [[1, 2], [2, 1]]}},
        {"dataframe_split": {"columns": ["right", "left"], "index": [0], "data": [[2, 1]]}},
        {"dataframe_records": [{"left": 1, "right": 2}, {"right": 1, "left": 2}]},
        {"instances": [[1, 2], [2, 1]]},
        {"instances": [{"left": 1, "right": 2}, {"left": 2, "right": 1}]},
        {"inputs": [[1, 2], [2, 1]]},
        {"inputs": {"x": [[1, 2], [2, 1]]}},
        {"inputs": {"left": [1, 2], "right": [2, 1]}},
        {"inputs": [[1, 2], [2, 1]], "params": {"temperature": 1}},
        {"inputs": [[1, 2], [2, 1]], "client_request_id": "a"},
    ],
    ids=[
        *("split", "split-order", "records", "instances", "instances-records"),
        *("inputs", "inputs-tensor", "inputs-columns", "params", "other-keys"),
    ],
)  # fmt: skip
def test_every_form_of_json_is_answered(server: LiveServer, body: Any) -> None:
    status, answer = ask(server, body)
    assert status == 200
    assert answer["predictions"][0] == "right"
    assert answer.keys() == {"predictions"}


@pytest.mark.parametrize(
    "kind",
    [
        *("application/json; charset=utf-8", "application/json;charset=UTF-8"),
        *('application/json; charset="utf-8"', "application/vnd.api+json", "APPLICATION/JSON"),
    ],
)
def test_json_may_say_its_charset(server: LiveServer, kind: str) -> None:
    assert ask(server, {"instances": [[1, 2]]}, kind)[0] == 200


@pytest.mark.parametrize(
    "kind",
    [
        *("application/json; charset=latin-1", "application/json; format=pandas-split"),
        *("application/vnd.apache.parquet", "text/html"),
    ],
)
def test_other_types_are_refused(server: LiveServer, kind: str) -> None:
    status, answer = ask(server, {"instances": [[1, 2]]}, kind)
    assert (status, answer["error_code"]) == (415, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"", "empty"),
        ([[1, 2]], "not an object"),
        ({}, "exactly one"),
        ({"data": [[1, 2]]}, "exactly one"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "exactly one"),
        ({"instances": [[1, "x"]]}, "instances[0][1]"),
        ({"dataframe_split": [[1, 2]]}, "dataframe_split"),
        ({"dataframe_split": {"columns": ["left"], "data": [[1]]}}, "missing: 'right'"),
        ({"dataframe_records": [{"left": 1, "wrong": 2}]}, "unknown: 'wrong'"),
        (
            {"dataframe_split": {"columns": ["left", "right", "x"], "data": [[1, 2]]}},
            "unknown: 'x'",
        ),
    ],
)
def test_bad_bodies_are_the_senders_fault(server: LiveServer, body: Any, said: str) -> None:
    status, answer = ask(server, body)
    assert (status, answer["error_code"]) == (400, "BAD_REQUEST")
    assert said in answer["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["label", "right", "left"], "data": [["?", 2, 1]]}},
        {"dataframe_records": [{"left": 1, "right": 2, "label": "?"}, {"left": 1, "right": 2}]},
        {"instances": [{"left": 1, "right": 2, "label": None}]},
        {"inputs": {"left": [1], "right": [2], "label": ["?"]}},
        {"inputs": {"x": [[1, 2]], "label": ["?"]}},
    ],
    ids=["split", "records", "instances", "columns", "tensor"],
)
def test_other_columns_of_a_frame_are_left_out(server: LiveServer, body: Any) -> None:
    status, answer = ask(server, body)
    assert (status, answer["predictions"][0]) == (200, "right")


def test_several_outputs_are_records_or_columns() -> None:
    with serve_models({"sums": Sums()}) as server:
        assert ask(server, {"instances": [[1, 2, 3]]}) == (
            200,
            {"predictions": [{"total": 6, "twice": [2, 4, 6]}]},
        )
        assert ask(server, {"inputs": [[1, 2, 3]]}) == (
            200,
            {"predictions": {"total": [6], "twice": [[2, 4, 6]]}},
        )


def test_csv_is_read_by_the_schema(columns: LiveServer) -> None:
    text = HEADER + '007,"a, ""b""",3.0,,TRUE\n"zürich",,-2,1e3,false\n'
    assert csv(columns, "\ufeff" + text) == (
        200,
        {"predictions": ['007|a, "b"|3|nan|True', "zürich|None|-2|1000.0|False"]},
    )
    assert csv(columns, "target," + HEADER + "?,a,b,1,2,true\n") == (
        200,
        {"predictions": ["a|b|1|2.0|True"]},
    )


@pytest.mark.parametrize(
    "text",
    ["left,right\n1,2\n", "right,left\r\n2,1\r\n", "left,right\n1,2", ",left,right\n0,1,2\n",
     "left,right\n\n1,2\n\n", "0,1\n1,2\n", "left,label,right\n1,?,2\n"],
    ids=["plain", "order", "no-last-end", "index", "empty-lines", "without-names", "label"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["text/csv", "text/csv; charset=utf-8", "Text/CSV;charset=UTF-8"])
def test_csv_of_a_matrix(server: LiveServer, text: str, kind: str) -> None:
    assert csv(server, text, kind) == (200, {"predictions": ["right"]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (HEADER, "no rows"),
        (HEADER + "a,b,1,2\n", "Line 2 has 4 cells"),
        (HEADER + "a,b,1,2,true\na,b,1.5,2,true\n", "whole numbers"),
        (HEADER + "a,b,1,2,true\na,b,x,2,true\n", "line 3, column 'count'"),
        (HEADER + "a,b,1,two,true\n", "line 2, column 'size'"),
        (HEADER + "a,b,1,2,maybe\n", "true or false"),
        (HEADER + "a,b,,2,true\n", "line 2, column 'count' is empty"),
        (HEADER + ",b,1,2,true\n", "line 2, column 'name' is empty"),
        (HEADER + "a,b,1_000,2,true\n", "line 2, column 'count'"),
        (HEADER + "a,b,99999999999999999999,2,true\n", "beyond the range"),
        (HEADER + "a,b,1,inf,true\n", "infinite"),
        (HEADER + '"a,b,1,2,true\n', "cannot be read at line"),
        (HEADER.replace("known", "kown") + "a,b,1,2,true\n", "missing: 'known'; unknown: 'kown'"),
        (HEADER.replace("note", "name") + "a,b,1,2,true\n", "given twice: 'name'"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)  # fmt: skip
def test_bad_csv_is_told_with_its_line(columns: LiveServer, text: str | bytes, said: str) -> None:
    status, answer = csv(columns, text)
    assert (status, answer["error_code"]) == (400, "BAD_REQUEST")
    assert said in answer["message"]


def test_csv_needs_a_model_of_columns() -> None:
    from scoring.schema import ModelSchema, TensorSpec

    class Images(Sums):
        schema = ModelSchema(
            inputs=(TensorSpec("x", "float32", (None, 2, 2)),),
            outputs=(TensorSpec("total", "float32", (None,)),),
        )

    with serve_models({"images": Images()}) as server:
        status, answer = csv(server, "a,b\n1,2\n")
    assert status == 400
    assert "rows of columns" in answer["message"]


def test_probes_and_version(server: LiveServer) -> None:
    with Client(server.port) as client:
        for path, body in (("/ping", b"\n"), ("/health", b"\n"), ("/version", b"fieldpost/")):
            client.send(get(path))
            answer = client.read()
            assert answer.status == 200
            assert answer.body.startswith(body)
        assert answer.body.decode().endswith(__version__)


def test_a_server_that_drains_is_not_healthy() -> None:
    with serve_models({"sums": Sums()}) as server:
        server.app.ready = False
        with Client(server.port) as client:
            client.send(get("/ping"))
            assert client.read().status == 503


def test_without_a_default_model_the_error_says_where_to_ask() -> None:
    models = {"one": Sums(), "two": Sums()}
    with serve_models(models) as server:
        status, answer = ask(server, {"instances": [[1, 2, 3]]})
    assert (status, answer["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "/v1/models/NAME:predict" in answer["message"]


def test_a_model_that_fails_is_told_without_its_traceback() -> None:
    model = Sums()
    with serve_models({"sums": model}) as server:
        model.error = RuntimeError("a secret")
        status, answer = ask(server, {"instances": [[1, 2, 3]]})
    assert (status, answer["error_code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer["message"]


def test_statuses_have_mlflows_names() -> None:
    assert error_code(429) == "REQUEST_LIMIT_EXCEEDED"
    assert error_code(413) == "BAD_REQUEST"
    assert error_code(507) == "INTERNAL_ERROR"
