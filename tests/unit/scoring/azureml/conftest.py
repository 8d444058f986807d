"""Loads scripts into the test's own process, and puts everything that they mark back after."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from scoring.azureml import EntryScript, ScriptSettings, aliases, coroutines, logs, state
from scoring.http import Request

if TYPE_CHECKING:
    from pathlib import Path

Load = Callable[..., EntryScript]
Post = Callable[..., Request]


@pytest.fixture
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process as it was before: path, modules, environment, print, logging, marks."""
    modules, path, environ = set(sys.modules), list(sys.path), dict(os.environ)
    for name in [n for n in environ if n.startswith(("AML_", "AZUREML_", "SERVICE_"))]:
        monkeypatch.delenv(name)
    level = logging.getLogger().level
    loops: list[asyncio.AbstractEventLoop] = []
    new_loop = coroutines.new_loop

    def kept() -> asyncio.AbstractEventLoop:
        loops.append(new_loop())
        return loops[-1]

    monkeypatch.setattr(coroutines, "new_loop", kept)
    yield
    for loop in loops:
        loop.close()
        asyncio.set_event_loop(None)
    logs.restore()
    logging.getLogger().setLevel(level)
    aliases.remove()
    state.raw_http = state.strict = False
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        # Only what a script brought along: libraries do not bear a second import.
        if name in {"entry_module", "main"} or name.startswith("user_"):
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(environ)


@pytest.fixture
def load(tmp_path: Path, clean_process: None) -> Load:
    """Writes a script and loads it; an `init` that does nothing is added where there is none."""

    def load_source(source: str, **settings: Any) -> EntryScript:
        text = textwrap.dedent(source)
        if "def init" not in text:
            text += "\ndef init():\n    pass\n"
        (tmp_path / "score.py").write_text(text)
        settings = {"app_root": str(tmp_path), "entry_script": "score.py"} | settings
        return EntryScript.load(ScriptSettings(**settings))

    return load_source


@pytest.fixture(scope="session")
def post() -> Post:
    """Makes a POST to /score with a JSON type and any headers."""

    def make(body: str | bytes, content_type: str = "application/json", **headers: str) -> Request:
        content = body.encode() if isinstance(body, str) else body
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return Request("POST", "/score", "", [("content-type", content_type), *named], content)

    return make
