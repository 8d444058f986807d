"""`async def run` and generators under the contract: schemas, raw requests, contexts, ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scoring.azureml import EntryScript
from scoring.http import PulledBody, Request, Response

Load = Callable[..., EntryScript]
Post = Callable[..., Request]


def answered(script: EntryScript, request: Request) -> tuple[Response, bytes]:
    """The answer of an asynchronous script, and its whole body."""
    assert script.loop is not None
    return script.loop.run_until_complete(_answered(script, request))


async def _answered(script: EntryScript, request: Request) -> tuple[Response, bytes]:
    response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(script.answer(request, response.set_result))
    async with asyncio.timeout(10):
        given = await response
        if isinstance(given.body, bytes):
            return given, given.body
        assert isinstance(given.body, PulledBody)
        body = b"".join([part async for part in parts(given.body)])
        await task
        return given, body


async def parts(body: PulledBody) -> Any:
    while True:
        part: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def got(
            data: bytes | None,
            error: BaseException | None,
            part: asyncio.Future[bytes | None] = part,
        ) -> None:
            if error is None:
                part.set_result(data)
            else:
                part.set_exception(error)

        body.pull(got)
        data = await part
        if data is None:
            return
        yield data


SCHEMA = """
    from inference_schema.schema_decorators import input_schema, output_schema
    from inference_schema.parameter_types.standard_py_parameter_type import (
        StandardPythonParameterType)

    @input_schema("data", StandardPythonParameterType([1]))
    @output_schema(StandardPythonParameterType([1]))
    async def run(data):
        return [2 * value for value in data]
"""


def test_schemas_of_an_async_run(load: Load, post: Post) -> None:
    pytest.importorskip("inference_schema")
    script = load(SCHEMA)
    response, body = answered(script, post('{"data": [1, 2]}'))
    assert (response.status, body) == (200, b"[2,4]")
    for bad in ('{"data": "text"}', '{"data"', "{}"):
        assert answered(script, post(bad))[0].status == 400
    assert script.swagger("3")["openapi"].startswith("3.")
    swagger, _ = answered(script, Request("GET", "/swagger.json", ""))
    assert swagger.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/nothing", 404),
        ("PUT", "/score", 405),
        ("OPTIONS", "/score", 200),
        ("GET", "/score", 200),
    ],
)
def test_the_other_routes(load: Load, method: str, path: str, status: int) -> None:
    script = load("async def run(data): return data")
    assert answered(script, Request(method, path, ""))[0].status == status


def test_ids_are_checked_first(load: Load, post: Post) -> None:
    script = load("async def run(data): raise AssertionError")
    assert answered(script, post("1", x_request_id="x" * 101))[0].status == 431


RAW = """
    import flask
    from azureml.contrib.services.aml_request import rawhttp

    @rawhttp
    {kind} run(request):
        for number in range(2):
            {wait}
            yield f"{{number}} {{request.args['a']}} {{flask.request.args['a']}} "
"""


def raw_request(value: str) -> Request:
    return Request("POST", "/score", f"a={value}", [], b"")


def test_the_request_is_there_for_each_value_of_an_async_generator(load: Load) -> None:
    pytest.importorskip("flask")
    script = load(RAW.format(kind="async def", wait="await __import__('asyncio').sleep(0)"))

    async def both() -> list[tuple[Response, bytes]]:
        requests = [raw_request("x"), raw_request("y")]
        return await asyncio.gather(*(_answered(script, each) for each in requests))

    assert script.loop is not None
    bodies = [body for _, body in script.loop.run_until_complete(both())]
    assert bodies == [b"0 x x 1 x x ", b"0 y y 1 y y "]


def test_the_request_is_there_for_each_value_of_a_generator(load: Load) -> None:
    pytest.importorskip("flask")
    script = load(RAW.format(kind="def", wait="pass"))
    streams = [script.handle(raw_request(value)).body for value in "xy"]
    texts = ["", ""]
    for _ in range(2):
        for number, stream in enumerate(streams):  # as the server does: in turns
            assert isinstance(stream, Iterator)
            texts[number] += next(stream).decode()
    assert texts == ["0 x x 1 x x ", "0 y y 1 y y "]
    for stream in streams:
        assert isinstance(stream, Iterator)
        assert next(stream, None) is None
        stream.close()  # type: ignore[attr-defined]


CONTEXTS = """
    import contextvars
    who = contextvars.ContextVar("who")
    async def run(data):
        who.set(data)
        for _ in range(2):
            yield who.get()
"""


def test_context_variables_are_one_requests(load: Load, post: Post) -> None:
    script = load(CONTEXTS)
    assert answered(script, post("a"))[1] == b"aa"
    assert answered(script, post("b"))[1] == b"bb"


def test_what_has_no_json_is_an_error_while_it_can_be(load: Load, post: Post) -> None:
    script = load("async def run(data):\n    yield object()\n")
    response, body = answered(script, post("a"))
    assert response.status == 500
    assert b"internal error" in body
    plain = load("def run(data):\n    yield object()\n").handle(post("a"))
    assert plain.status == 500


def test_a_hidden_coroutine_is_awaited(load: Load, post: Post) -> None:
    script = load(
        """
        async def later(data): return data
        async def values():
            yield 1
            yield 2
        def run(data): return values() if data == "stream" else later(data)
        """
    )
    assert script.loop is None
    assert script.handle(post("x")).body == b'"x"'
    body = script.handle(post("stream")).body
    assert isinstance(body, Iterator)
    assert list(body) == [b"1\n", b"2\n"]


def test_strict_scripts_are_as_under_azures_server(load: Load, post: Post) -> None:
    script = load("def run(data):\n    yield 1\n", strict=True)
    response = script.handle(post("x"))
    assert response.status == 500
    assert isinstance(response.body, bytes)
    assert "internal error" in json.loads(response.body)["message"]


def test_an_iterators_end_is_its_last_value(load: Load, post: Post) -> None:
    script = load("def run(data): return map(str, range(3))")
    body = script.handle(post("x")).body
    assert isinstance(body, Iterator)
    assert b"".join(body) == b"012"
    assert next(body, None) is None
