"""Schemathesis against the documents that the server gives of itself: no 5xx, no hang.

It is installed once, into `.build/schemathesis`; where that cannot be done these tests are skipped.
It stays out of our own environment, for it brings a plugin that every run of pytest would import.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.oip import Echo, schema
from tests.support.peers import python_with
from tests.support.scripts import serving
from tests.support.server import serve_model, serve_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PEER = "schemathesis==4.32.5"
SECONDS = 5

# A model that the run itself has unloaded is not ready, and the protocol calls that 503.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
"""

SCRIPT = """
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

def init():
    pass

@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
@input_schema("options", StandardPythonParameterType({"scale": 1, "names": ["x"]}))
@output_schema(StandardPythonParameterType({"sum": 1.0}))
def run(data, options={"scale": 1, "names": []}):
    return {"sum": float(data.sum()) * options["scale"]}
"""

CHECKS = "not_a_server_error,response_schema_conformance,status_code_conformance"
"""What is wrong with answers; who may ask, and whether schemas say all, is not asked here."""


@contextlib.contextmanager
def many_models(_folder: Path) -> Iterator[str]:
    wide = Echo(
        schema(
            {"x": ("float32", (None, 3)), "s": ("string", (None,)), "b": ("bool", (None, 1))},
            {"x_out": ("float32", (None, 3)), "s_out": ("string", (None,))},
        )
    )
    halves = Echo(schema({"h": ("float16", (None, 2))}, {"h_out": ("float16", (None, 2))}))
    with serve_models({"wide": wide, "halves": halves}, warm=False) as live:
        yield f"http://127.0.0.1:{live.port}"


@contextlib.contextmanager
def one_model(_folder: Path) -> Iterator[str]:
    # It computes nothing: the largest numbers are legal, and numpy's warnings are errors here.
    with serve_model(Echo.of("float32"), warm=False) as live:
        yield f"http://127.0.0.1:{live.port}"


@contextlib.contextmanager
def a_script(folder: Path) -> Iterator[str]:
    with serving(folder, SCRIPT) as worker:
        yield worker.url


@pytest.mark.parametrize(
    ("server", "document"),
    [
        pytest.param(many_models, "v2/openapi.json", id="v2"),
        pytest.param(one_model, "swagger.json?version=3", id="model"),
        pytest.param(a_script, "swagger.json?version=3", id="script"),
    ],
)
def test_nothing_that_a_document_allows_or_forbids_breaks_the_server(
    tmp_path: Path,
    server: Callable[[Path], contextlib.AbstractContextManager[str]],
    document: str,
) -> None:
    python = python_with("schemathesis", PEER)
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [str(python.with_name("st")), "--config-file", str(config), "run"]
    bounds = ["--max-time", str(SECONDS), "--max-examples", "20", "--request-timeout", "5"]
    with server(tmp_path) as url:
        done = subprocess.run(
            [*command, f"{url}/{document}", "--checks", CHECKS, *bounds, "--no-shrink"],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,  # where it leaves its examples
            env={**os.environ, "NO_COLOR": "1"},
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
