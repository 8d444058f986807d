from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from scoring.azureml import EntryScript
from scoring.http import Request, Response

if TYPE_CHECKING:
    from pathlib import Path

Load = Callable[..., EntryScript]
Post = Callable[..., Request]

ECHO = "def run(raw): return raw\n"


def body(response: Response) -> Any:
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


def header(response: Response, name: str) -> str | None:
    values = [value for key, value in response.headers if key.lower() == name]
    assert len(values) < 2
    return values[0] if values else None


def test_an_answer_has_every_header(load: Load, post: Post) -> None:
    response = load(ECHO, server_version="v/1").handle(post("text", x_request_id="r", traceid="t"))
    assert response.body == b'"text"'
    assert header(response, "content-type") == "application/json"
    assert header(response, "x-ms-run-function-failed") == "False"
    assert float(header(response, "x-ms-run-fn-exec-ms") or "x") >= 0
    assert header(response, "x-request-id") == "r"
    assert header(response, "x-ms-request-id") == "r"
    assert header(response, "x-ms-server-version") == "v/1"
    assert header(response, "traceid") == "t"


def test_idioms_of_public_scripts(load: Load, post: Post, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    sklearn = pytest.importorskip("sklearn.linear_model")
    model = sklearn.LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    joblib.dump(model, tmp_path / "sklearn_regression_model.pkl")
    script = load(
        """
        import json, logging, os
        import joblib, numpy

        def init():
            global model
            model_path = os.path.join(
                os.getenv("AZUREML_MODEL_DIR"), "sklearn_regression_model.pkl")
            model = joblib.load(model_path)
            logging.info("Init complete")

        def run(raw_data):
            logging.info("model 1: request received")
            data = json.loads(raw_data)["data"]
            data = numpy.array(data)
            result = model.predict(data)
            logging.info("Request processed")
            return result.tolist()
        """,
        model_dir=str(tmp_path),
    )
    assert body(script.handle(post('{"data": [[2], [3]]}'))) == pytest.approx([5.0, 7.0])


def test_request_headers_are_a_plain_dict_in_title_case(load: Load, post: Post) -> None:
    script = load(
        "def run(raw, request_headers): return [type(request_headers).__name__, request_headers]"
    )
    request = post("x", x_one="1")
    request.headers.append(("x-one", "2"))
    request.headers.append(("x_one", "forged"))
    request.headers.append(("x_two", "3"))
    assert body(script.handle(request)) == [
        "dict",
        {"Content-Type": "application/json", "X-One": "1,2"},
    ]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("OPTIONS", "/score", 200),
        ("HEAD", "/score", 405),
        ("GET", "//score", 200),
        ("DELETE", "/score", 405),
        ("POST", "/", 405),
        ("GET", "/nothing", 404),
        ("GET", "/score/", 404),
        ("GET", "/score/../", 404),
    ],
)
def test_routes(method: str, path: str, status: int, load: Load) -> None:
    response = load(ECHO).handle(Request(method, path))
    assert response.status == status
    if status >= 400 and method != "HEAD":
        assert body(response)["message"]


@pytest.mark.parametrize("path", ["/", "/swagger.json", "/score"])
def test_head_is_answered_as_get_is_for_its_length(path: str, load: Load) -> None:
    source = """
        from azureml.contrib.services.aml_request import rawhttp
        from azureml.contrib.services.aml_response import AMLResponse
        @rawhttp
        def run(request):
            return AMLResponse("12345", 200)
        """
    script = load(source)
    head, get = (script.handle(Request(method, path)) for method in ("HEAD", "GET"))
    assert head.body == get.body
    assert get.body


def test_health_and_a_method_that_is_not_allowed(load: Load) -> None:
    script = load(ECHO)
    assert script.handle(Request("GET", "/")).body == b"Healthy"
    assert header(script.handle(Request("PUT", "/score")), "allow") == "GET, HEAD, OPTIONS, POST"


def test_ids_over_the_limit_are_refused(load: Load, post: Post) -> None:
    response = load(ECHO).handle(post("x", x_request_id="i" * 101))
    assert response.status == 431
    assert "x-request-id" in body(response)["message"]


@pytest.mark.parametrize("status", [200, 404])
def test_origins_reach_routes_alone(status: int, load: Load) -> None:
    script = load(ECHO, cors_origins="https://a.example")
    path = "/" if status == 200 else "/nothing"
    response = script.handle(Request("GET", path, headers=[("origin", "https://a.example")]))
    allowed = header(response, "access-control-allow-origin")
    assert allowed == ("https://a.example" if status == 200 else None)


def test_arrays_are_answered_unless_strict(load: Load, post: Post) -> None:
    source = "import numpy\ndef run(raw): return {'y': numpy.array([1, 2])}"
    assert body(load(source).handle(post("x"))) == {"y": [1, 2]}
    response = load(source, strict=True).handle(post("x"))
    assert response.status == 500
    assert "internal error" in body(response)["message"]
    assert header(response, "x-ms-run-fn-exec-ms") is None


def test_what_cannot_be_encoded_is_500_and_the_server_goes_on(load: Load, post: Post) -> None:
    script = load("def run(raw): return object() if raw == 'bad' else raw")
    assert script.handle(post("bad")).status == 500
    assert script.handle(post("good")).status == 200


@pytest.mark.parametrize(
    "statement", ["raise ValueError('secret')", "raise SystemExit(1)", "1 / 0", "assert False"]
)
def test_failures_are_answered_and_logged(
    statement: str, load: Load, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    script = load(f"def run(raw):\n    {statement}\n")
    logging.getLogger("azmlinfsrv").propagate = True
    response = script.handle(post("x"))
    assert response.status == 500
    assert header(response, "x-ms-run-function-failed") == "True"
    assert header(response, "x-ms-run-fn-exec-ms") is None
    assert "secret" not in str(response.body)
    assert "score.py" in caplog.text


def test_a_script_over_its_time_is_answered(load: Load, post: Post) -> None:
    source = "import time\ndef run(raw): time.sleep(float(raw)); return 'late'"
    script = load(source, scoring_timeout_ms=50)
    response = script.handle(post("30"))
    assert response.status == 500
    assert body(response) == {"message": "Scoring timeout after 50 ms"}
    assert header(response, "x-ms-run-function-failed") == "True"
    assert script.handle(post("0")).status == 200


def test_a_timeout_of_the_scripts_own_is_no_scoring_timeout(load: Load, post: Post) -> None:
    source = "def run(raw): raise TimeoutError('database')"
    assert "scoring script" in body(load(source).handle(post("x")))["message"]
    strict = load(source, strict=True).handle(post("x"))
    assert body(strict)["message"] == "Scoring timeout after 3600000 ms"


def test_other_threads_are_answered(load: Load, post: Post) -> None:
    script = load(ECHO, scoring_timeout_ms=1000)
    answers: list[Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(script.handle(post("x")))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 4


def test_a_plain_script_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(
        "import json\ndef init(): pass\ndef run(raw): return json.loads(raw)\n"
    )
    code = (
        "import sys\n"
        "from scoring.azureml import EntryScript, ScriptSettings\n"
        "from scoring.http import Request\n"
        f"settings = ScriptSettings(app_root={str(tmp_path)!r}, entry_script='score.py')\n"
        "script = EntryScript.load(settings)\n"
        "for body in (b'[1]', b'{', b'\\xff'):\n"
        "    script.handle(Request('POST', '/score', body=body))\n"
        "heavy = {'flask', 'werkzeug', 'numpy', 'pandas', 'inference_schema', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
