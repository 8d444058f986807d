from __future__ import annotations

import pytest

from scoring.errors import EntryScriptError
from serve.targets.local.launch import (
    Launch,
    SupervisorConfig,
    error_document,
    port_of,
    url_of,
)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_a_url_can_be_reached(host: str, url: str) -> None:
    assert url_of(host, 80) == url
    assert port_of(url) == 80


@pytest.mark.parametrize("url", ["", "http://host", "http://host:no", "http://host:99999"])
def test_no_port_is_zero(url: str) -> None:
    assert port_of(url) == 0


def test_secrets_are_in_no_text() -> None:
    launch = Launch(revision=1, command=("x",), env={"TOKEN": "s3cret"}, cwd="/", host="h", port=0)
    config = SupervisorConfig("iris", "/run", "postgresql://u:s3cret@h/d")
    assert "s3cret" not in f"{launch!r} {launch} {config!r} {config} {launch.spec("metrics")!r}"


def test_errors_become_documents() -> None:
    known = error_document(EntryScriptError("no run()", hint="add one"))
    assert known == {"code": "entry_script", "message": "no run()", "hint": "add one"}
    assert error_document(ValueError("x")) == {"code": "internal", "message": "ValueError: x"}
