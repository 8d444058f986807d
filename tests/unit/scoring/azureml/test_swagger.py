from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from scoring.azureml import EntryScript
from scoring.azureml.swagger import UnknownVersionError
from scoring.errors import EntryScriptError
from scoring.http import Request

if TYPE_CHECKING:
    from pathlib import Path

Load = Callable[..., EntryScript]

DECORATED = """
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


@input_schema("data", NumpyParameterType(np.array([[1.5, 2.0]])))
@input_schema("mixed", StandardPythonParameterType({mixed}))
@output_schema(NumpyParameterType(np.array([3.5])))
def run(data, mixed=None):
    return data.sum(axis=1)
"""


@pytest.fixture
def decorated(load: Load) -> EntryScript:
    return load(DECORATED.replace("{mixed}", "[1, 2]"))


def test_schemas_and_examples_are_in_all_versions(decorated: EntryScript) -> None:
    for version in ("2", "2.0", "3", "3.0", "3.1"):
        document = decorated.swagger(version)
        schemas = document.get("definitions") or document["components"]["schemas"]
        taken, answered = schemas["ServiceInput"], schemas["ServiceOutput"]
        assert taken["example"] == {"data": [[1.5, 2.0]], "mixed": [1, 2]}
        assert taken["properties"]["data"]["items"]["items"]["type"] == "number"
        assert answered["example"] == [3.5]
    assert decorated.swagger("2")["swagger"] == "2.0"
    assert decorated.swagger("3")["openapi"] == "3.0.3"
    assert decorated.swagger("3.1")["openapi"] == "3.1.0"


def test_the_example_is_a_request_that_works(decorated: EntryScript) -> None:
    example = decorated.swagger("3")["components"]["schemas"]["ServiceInput"]["example"]
    headers = [("content-type", "application/json")]
    request = Request("POST", "/score", "", headers, json.dumps(example).encode())
    assert decorated.handle(request).body == b"[3.5]"


def test_an_undecorated_run_takes_anything(load: Load) -> None:
    document = load("def run(raw): return raw").swagger("2")
    assert document["definitions"]["ServiceInput"] == {"type": "object", "example": {}}


def test_service_names_are_kept_even_with_quotes(load: Load) -> None:
    script = load(
        "def run(raw): return raw",
        service_name='a "quoted" name',
        service_version="3",
        service_path_prefix="/a/b/",
    )
    for version in ("2", "3"):
        document = script.swagger(version)
        assert document["info"]["title"] == 'a "quoted" name'
        assert document["info"]["version"] == "3"
        assert sorted(document["paths"]) == ["/a/b/", "/a/b/score", "/a/b/swagger.json"]


def test_unknown_and_unfit_versions_say_which_there_are(load: Load) -> None:
    # inference-schema goes by the outermost decorator.
    head, data, mixed, tail = re.split(r"(@input_schema.*\n)(@input_schema.*\n)", DECORATED)
    script = load((head + mixed + data + tail).replace("{mixed}", "[1, 'two']"))
    with pytest.raises(UnknownVersionError, match=r"\[1\] is not valid.*\[3, 3.1\]"):
        script.swagger("1")
    with pytest.raises(UnknownVersionError, match=r"\[2\] is not supported.*\[3, 3.1\]"):
        script.swagger("2")


@pytest.mark.parametrize(
    ("file", "version"),
    [("swagger.json", "2"), ("swagger2.json", "2"), ("swagger3.json", "3.0")],
)
def test_the_users_own_files_stand_in(file: str, version: str, load: Load, tmp_path: Path) -> None:
    (tmp_path / file).write_text('{"own": "ü"}', encoding="utf-8")
    script = load("def run(raw): return raw")
    assert script.swagger(version) == {"own": "ü"}
    assert "own" not in script.swagger("3.1")


def test_a_file_that_init_writes_counts(load: Load) -> None:
    script = load(
        """
        import os
        import pathlib
        def init():
            folder = pathlib.Path(os.environ["AML_APP_ROOT"])
            (folder / "swagger.json").write_text('{"by": "init"}')
        def run(raw): return raw
        """
    )
    assert script.swagger("2") == {"by": "init"}


def test_a_broken_file_is_refused_at_start(load: Load, tmp_path: Path) -> None:
    (tmp_path / "swagger3.json").write_text("{")
    with pytest.raises(EntryScriptError, match=r"swagger3\.json"):
        load("def run(raw): return raw")


@pytest.mark.parametrize(
    ("query", "status"), [("", 200), ("version=3.1", 200), ("version=4", 404), ("version=", 404)]
)
def test_the_route(query: str, status: int, load: Load) -> None:
    response = load("def run(raw): return raw").handle(Request("GET", "/swagger.json", query))
    assert response.status == status
    assert isinstance(response.body, bytes)
    document: dict[str, Any] = json.loads(response.body)
    assert ("message" in document) == (status == 404)
