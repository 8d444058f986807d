from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from scoring.azureml import EntryScript
from scoring.http import Request, Response

Load = Callable[..., EntryScript]
Post = Callable[..., Request]

NESTED = """
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

row = NumpyParameterType(np.array([1.0, 2.0]))


@input_schema("one", row)
@input_schema("named", StandardPythonParameterType({"deep": StandardPythonParameterType([row])}))
def run(one, named={}):
    if one[0] < 0:
        raise ValueError("the script's own")
    return "fine"
"""


def body(response: Response) -> Any:
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"one": [1, "x"]}, "one[1]"),
        ({"one": 3}, "one"),
        ({"one": [1], "named": []}, "named"),
        ({"one": [1], "named": {"deep": [[1, 2], [3, "x"]]}}, "named.deep[1][1]"),
        ({"one": [1], "named": {"deep": 3}}, "named.deep"),
        ({}, "one"),
    ],
)
def test_what_does_not_fit_the_schema_is_answered_400_with_the_place(
    document: Any, where: str, load: Load, post: Post
) -> None:
    response = load(NESTED).handle(post(json.dumps(document)))
    answer = body(response)
    assert response.status == 400
    assert answer["where"] == where
    assert where in answer["message"]
    assert answer["code"]
    assert ("x-ms-run-function-failed", "False") in response.headers


def test_strict_answers_500_and_the_scripts_own_errors_stay_500(load: Load, post: Post) -> None:
    strict = load(NESTED, strict=True)
    assert strict.handle(post('{"one": ["x"]}')).status == 500
    response = load(NESTED).handle(post('{"one": [-1, 0]}'))
    assert response.status == 500
    assert "the script's own" not in str(body(response))
    assert ("x-ms-run-function-failed", "True") in response.headers


def test_a_schema_within_run_is_the_scripts_own_affair(load: Load, post: Post) -> None:
    script = load(
        NESTED.replace("def run(one", "def helper(one")
        + "\ndef run(raw):\n    return helper(one='wrong')\n"
    )
    assert script.handle(post("x")).status == 500


def test_a_decorator_around_the_schema_changes_nothing(load: Load, post: Post) -> None:
    script = load(LOGGED + NESTED.replace('@input_schema("one"', '@logged\n@input_schema("one"'))
    assert body(script.handle(post('{"one": ["x"]}')))["where"] == "one[0]"


LOGGED = """
import functools

def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
"""
READS_JSON = "import json\ndef run(raw): return json.loads(raw)['data']\n"


@pytest.mark.parametrize(
    ("content", "status"), [('{"data": 1}', 200), ('{"data": ', 400), ("", 400), ("{}", 500)]
)
def test_a_body_that_the_script_cannot_read_as_json_is_400(
    content: str, status: int, load: Load, post: Post
) -> None:
    assert load(READS_JSON).handle(post(content)).status == status


def test_other_json_that_the_script_cannot_read_is_500(load: Load, post: Post) -> None:
    script = load("import json\ndef run(raw): return json.loads('{')\n")
    assert script.handle(post('{"data": 1}')).status == 500
    assert load(READS_JSON, strict=True).handle(post("{")).status == 500


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("flask.abort(403, 'not you')", 403),
        ("request.files['image']", 400),
        ("request.json", 400),
        ("flask.abort(503)", 500),
    ],
)
def test_refusals_through_flask_keep_their_status(
    statement: str, status: int, load: Load, post: Post
) -> None:
    source = f"""
        import flask
        from azureml.contrib.services.aml_request import rawhttp
        @rawhttp
        def run(request): return {statement}
        """
    assert load(source).handle(post("{")).status == status
    assert load(source, strict=True).handle(post("{")).status == 500


def test_a_scripts_input_error_is_400(load: Load, post: Post) -> None:
    script = load(
        """
        from scoring.errors import WrongShapeError
        def run(raw): raise WrongShapeError("too wide", where="data[3]")
        """
    )
    response = script.handle(post("x"))
    assert response.status == 400
    assert body(response) == {"message": "too wide", "code": "wrong_shape", "where": "data[3]"}
