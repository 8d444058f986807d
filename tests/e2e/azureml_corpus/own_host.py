"""Answers the same requests with `EntryScript.handle`, each script in a process of its own.

Standard input is one document, `{name: {"environment": ..., "requests": [...]}}`; the answers come
back as `{name: [[status, body in Latin-1, headers], ...]}`. A script that does not load has the
message of its error instead.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from scoring.azureml import EntryScript, ScriptSettings
from scoring.errors import EntryScriptError
from scoring.http import PulledBody, Request

if TYPE_CHECKING:
    from collections.abc import Callable


def answers(environment: dict[str, str], requests: list[dict[str, Any]]) -> Any:
    """Loads the script into this process and answers."""
    os.environ.update(environment)
    settings = ScriptSettings.read(arguments={"strict": True})
    try:
        script = EntryScript.load(settings)
    except EntryScriptError as error:
        return error.message
    return [answer(script, request) for request in requests]


def answer(script: EntryScript, spec: dict[str, Any]) -> list[Any]:
    path, _, query = spec["target"].partition("?")
    headers = [(name.lower(), value) for name, value in spec["headers"]]
    body = spec["body"].encode("latin-1")
    response = script.handle(Request(spec["method"], path, query, headers, body))
    content = response.body
    if not isinstance(content, bytes):
        assert not isinstance(content, PulledBody)  # of coroutines, which the original has not
        chunks, content = content, b"".join(content)
        getattr(chunks, "close", lambda: None)()
    return [response.status, content.decode("latin-1"), response.headers]


def forked(function: Callable[[], Any]) -> Any:
    """What the function returns in a child process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(2, 1)
        with os.fdopen(writing, "w") as pipe:
            json.dump(function(), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def main() -> None:
    work = json.load(sys.stdin)
    for name in ("numpy", "pandas"):
        importlib.import_module(name)
    results = {
        name: forked(lambda job=job: answers(job["environment"], job["requests"]))  # type: ignore[misc]
        for name, job in work.items()
    }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
