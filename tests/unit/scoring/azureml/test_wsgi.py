from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from scoring.azureml import EntryScript
from scoring.http import Request, Response

Load = Callable[..., EntryScript]
Post = Callable[..., Request]


def answer(source: str, load: Load, request: Request) -> Response:
    return load(source).handle(request)


def test_raw_scripts_get_flasks_request(load: Load) -> None:
    source = """
        from azureml.contrib.services.aml_request import AMLRequest, rawhttp
        import flask
        @rawhttp
        def run(request):
            assert isinstance(request, flask.Request)
            assert flask.request.method == request.method
            return [request.method, request.path, request.args.getlist("a"), request.form["k"],
                    request.headers["X-One"], request.host, request.get_data().decode()]
        """
    headers = [
        ("host", "h.example:5001"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-one", "1"),
        ("x-one", "2"),
        ("x_one", "forged"),
    ]
    request = Request("POST", "/score", "a=1&a=2", headers, b"k=v")
    response = answer(source, load, request)
    assert json.loads(response.body) == [  # type: ignore[arg-type]
        *("POST", "/score", ["1", "2"], "v", "1,2", "h.example:5001", "")
    ]


def test_files_arrive(load: Load) -> None:
    content = (
        b'--e\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n\x89PNG\xff\r\n--e--\r\n"
    )
    request = Request(
        "POST", "/score", "", [("content-type", "multipart/form-data; boundary=e")], content
    )
    source = """
        from azureml.contrib.services.aml_request import rawhttp
        from azureml.contrib.services.aml_response import AMLResponse
        @rawhttp
        def run(request):
            file = request.files["image"]
            return AMLResponse(file.read(), 200, {"Content-Type": file.content_type})
        """
    response = answer(source, load, request)
    assert response.body == b"\x89PNG\xff"
    assert ("Content-Type", "image/png") in response.headers


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_raw_scripts_get_every_method(method: str, load: Load) -> None:
    source = """
        from azureml.contrib.services.aml_request import rawhttp
        @rawhttp
        def run(request): return request.method
        """
    assert answer(source, load, Request(method, "/score")).body == f'"{method}"'.encode()


STREAM = """
from azureml.contrib.services.aml_response import AMLResponse
closed = []

def chunks():
    try:
        yield "one"
        yield b"two"
        yield "three"
    finally:
        closed.append(True)

def run(raw): return AMLResponse(chunks(), 200, {"Content-Type": "text/event-stream"})
"""


def test_generators_stream_and_are_closed(load: Load, post: Post) -> None:
    response = answer(STREAM, load, post("x"))
    assert isinstance(response.body, Iterator)
    assert next(response.body) == b"one"
    assert next(response.body) == b"two"
    response.body.close()  # type: ignore[attr-defined]
    import entry_module  # type: ignore[import-not-found]

    assert entry_module.closed == [True]


def test_a_whole_answer_is_bytes_and_its_frame_is_left_to_the_server(
    load: Load, post: Post
) -> None:
    source = """
        import flask
        def run(raw):
            answer = flask.Response("whole", status=202)
            answer.headers["Connection"] = "close"
            return answer
        """
    response = answer(source, load, post("x"))
    assert (response.status, response.body) == (202, b"whole")
    names = {name.lower() for name, _ in response.headers}
    assert not names & {"content-length", "connection"}
    assert "x-ms-run-fn-exec-ms" in names


def test_werkzeugs_own_response_passes_too(load: Load, post: Post) -> None:
    source = """
        import flask
        from werkzeug.wrappers import Response
        def run(raw): return Response("w", status=418)
        """
    assert answer(source, load, post("x")).status == 418


def test_a_failing_status_is_marked(load: Load, post: Post) -> None:
    source = """
        from azureml.contrib.services.aml_response import AMLResponse
        def run(raw): return AMLResponse("broken", 500)
        """
    headers = answer(source, load, post("x")).headers
    marks = [value for name, value in headers if name == "x-ms-run-function-failed"]
    assert marks == ["True"]


def test_a_response_of_a_script_may_be_returned_twice(load: Load, post: Post) -> None:
    script = load(
        """
        import flask
        answer = flask.Response("same")
        def run(raw): return answer
        """
    )
    first, second = script.handle(post("x")), script.handle(post("x"))
    assert first.body == second.body == b"same"
    assert len(first.headers) == len(second.headers)


def test_stream_with_context_sees_the_request(load: Load, post: Post) -> None:
    source = """
        import flask
        def run(raw):
            def chunks():
                yield flask.request.headers["X-One"]
            return flask.Response(flask.stream_with_context(chunks()))
        """
    body = answer(source, load, post("x", x_one="1")).body
    assert isinstance(body, Iterator)
    assert b"".join(body) == b"1"
