from __future__ import annotations

from typing import Any

import pytest

from scoring.errors import EntryScriptError
from serve.targets.local.launch import (
    Launch,
    SupervisorConfig,
    error_document,
    port_of,
    url_of,
)
from serve.targets.local.settings import LocalSettings, memory_limit, worker_environment


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
    assert "s3cret" not in f"{launch!r} {launch} {config!r} {config} {launch.spec('metrics')!r}"


def test_errors_become_documents() -> None:
    known = error_document(EntryScriptError("no run()", hint="add one"))
    assert known == {"code": "entry_script", "message": "no run()", "hint": "add one"}
    assert error_document(ValueError("x")) == {"code": "internal", "message": "ValueError: x"}


def test_a_memory_limit_reaches_the_pool_by_setting_or_by_the_servers_variable() -> None:
    for settings, limit in (
        (LocalSettings(), 0),
        (LocalSettings(worker_max_mib=300), 300),
        (LocalSettings(env={"FIELDPOST_SERVER_WORKER_MAX_MIB": "200"}), 200),
        (LocalSettings(worker_max_mib=300, env={"FIELDPOST_SERVER_WORKER_MAX_MIB": "200"}), 300),
        (LocalSettings(env={"FIELDPOST_SERVER_WORKER_MAX_MIB": "much"}), 0),
    ):
        assert memory_limit(settings) == limit
    launch = Launch(
        revision=1, command=(), env={}, cwd="/", host="h", port=0, worker_max_mib=300, workers=2
    )
    assert launch.limits().worker_max_mib == 300


def test_workers_share_a_folder_for_their_counters_unless_the_user_names_one() -> None:
    given: dict[str, Any] = {"revision": 1, "command": (), "cwd": "/", "host": "h", "port": 0}
    ours = Launch(**given, env={"A": "b"}).spec("/run/metrics")
    assert ours.env == {"A": "b", "FIELDPOST_SERVER_METRICS_DIR": "/run/metrics"}
    named = Launch(**given, env={"FIELDPOST_SERVER_METRICS_DIR": "/mine"}).spec("/run/metrics")
    assert named.env == {"FIELDPOST_SERVER_METRICS_DIR": "/mine"}


def test_pinning_is_passed_only_where_it_is_set() -> None:
    assert "FIELDPOST_SERVER_PIN" not in worker_environment(LocalSettings(), {})
    assert worker_environment(LocalSettings(pin="off"), {})["FIELDPOST_SERVER_PIN"] == "off"
