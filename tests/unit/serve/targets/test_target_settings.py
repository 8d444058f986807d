from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import UsageError
from serve.targets.local.settings import (
    LocalSettings,
    parse,
    speaks_tls,
    worker_environment,
)
from serve.targets.settings import describe_settings, mask_settings, parse_settings


def test_texts_become_values() -> None:
    parsed = parse_settings(
        LocalSettings,
        {"port": "8080", "workers": "2", "drain_timeout_s": "1.5", "azureml_compat": "strict"},
    )
    assert (parsed.port, parsed.workers, parsed.drain_timeout_s) == (8080, 2, 1.5)
    assert parsed.azureml_compat == "strict"


def test_environment_variables_are_taken_as_they_are() -> None:
    parsed = parse_settings(LocalSettings, {"env.TOKEN": "a=b", "env.EMPTY": "", "env.N": "007"})
    assert parsed.env == {"TOKEN": "a=b", "EMPTY": "", "N": "007"}


def test_an_unknown_key_is_refused_with_a_guess_and_the_list() -> None:
    with pytest.raises(UsageError, match=r"no setting 'worker'.*mean 'workers'") as caught:
        parse_settings(LocalSettings, {"worker": "2"})
    for name in ("port=integer", "azureml_compat=corrected|strict", "env.NAME=text"):
        assert name in caught.value.hint
    assert caught.value.where == "worker"


@pytest.mark.parametrize("key", ["env", "env_X", "evn.NAME"])
def test_whoever_misspells_a_variable_is_told_how_one_is_written(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(LocalSettings, {key: "2"})
    assert "mean 'env'" not in caught.value.message
    assert "env.NAME=text" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "http"),
        ("port", "65536"),
        ("port", "-1"),
        ("port", "80.5"),
        ("workers", "0"),
        ("workers", ""),
        ("ready_timeout_s", "0"),
        ("ready_timeout_s", "nan"),
        ("ready_timeout_s", "inf"),
        ("drain_timeout_s", "1e99"),
        ("azureml_compat", "yes"),
        ("host", ""),
        ("env", "A=1"),
        ("env.", "1"),
        ("env.A=B", "1"),
        ("env.A", "nul\0"),
        ("limits", "1"),
    ],
)
def test_wrong_values_are_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(LocalSettings, {key: value})
    assert key.rstrip(".") in caught.value.message


def test_a_secret_in_a_wrong_variable_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(LocalSettings, {"env.A": "s3cret\0"})
    assert "s3cret" not in caught.value.message + caught.value.hint


def test_secrets_are_masked_and_nothing_else() -> None:
    shown = mask_settings({"port": "1", "env.TOKEN": "s3cret", "environment": "x"})
    assert shown == {"port": "1", "env.TOKEN": "***", "environment": "x"}


def test_every_setting_is_described() -> None:
    described = " ".join(describe_settings(LocalSettings))
    for name in LocalSettings.__struct_fields__:
        assert name in described


def test_the_worker_gets_what_was_set_and_its_own_variables_last() -> None:
    settings = LocalSettings(
        scoring_timeout_ms=100, log_level="debug", drain_timeout_s=7, env={"PATH": "/mine"}
    )
    found = worker_environment(settings, {"PATH": "/bin", "HOME": "/root"})
    assert found["FIELDPOST_SERVER_SCORING_TIMEOUT_MS"] == "100"
    assert found["AZUREML_LOG_LEVEL"] == "DEBUG"
    assert float(found["FIELDPOST_SERVER_DRAIN_TIMEOUT_S"]) == 7
    assert found["PATH"] == "/mine"
    assert found["HOME"] == "/root"
    assert "FIELDPOST_SERVER_THREADS" not in found


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4))
def test_any_settings_are_parsed_or_refused_as_usage(settings: dict[str, Any]) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(parse_settings(LocalSettings, settings), LocalSettings)


def test_every_setting_of_the_server_can_be_set() -> None:
    from serve.server.settings import PREFIX, ServerSettings

    own = {"host", "port", "workers", "worker_max_mib"}  # the supervisor's
    tls = {"tls_cert": "/c", "tls_key": "/k"}
    for name, value in ServerSettings(**tls).items():  # type: ignore[arg-type]
        text = str(value or ("" if value == "" else 1))
        given = worker_environment(parse({**tls, f"server.{name}": text}), {})
        got = given.get(PREFIX + name.upper())
        assert got is None if name in own else type(value)(got) == type(value)(text)
    assert parse({"server.workers": "3", "server.port": "99"}).workers == 3
    given = worker_environment(parse({"server.inline_ms": "0", "rate_limit": "2.5"}), {})
    assert given["FIELDPOST_SERVER_INLINE_MS"] == "0"
    assert given["FIELDPOST_SERVER_RATE_LIMIT"] == "2.5"


@pytest.mark.parametrize(
    ("given", "where", "says"),
    [
        ({"server.max_batch": "2"}, "server.max_batch", "mean 'server.max_batch_rows'"),
        ({"server.inline_ms": "soon"}, "inline_ms", "inline_ms is 'soon'"),
        ({"server.metrics": "yes"}, "metrics", "on or off"),
        ({"tls_cert": "/cert.pem"}, "tls_cert", "both"),
        ({"api_keys": "keys.json"}, "api_keys", "depends on the present folder"),
        ({"server.oidc_jwks": "keys.json"}, "oidc_jwks", "depends on the present folder"),
        ({"rate_limit": "-1"}, "rate_limit", "cannot be"),
        ({"server.workers": "0"}, "workers", "cannot be"),
    ],
    ids=str,
)
def test_a_wrong_setting_of_the_server_is_refused_at_once(
    given: dict[str, str], where: str, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(given)
    assert caught.value.where == where
    assert says in caught.value.message + caught.value.hint


def test_urls_and_streams_are_no_paths() -> None:
    parse({"access_log": "-", "server.oidc_jwks": "https://example.org/keys"})
    assert "JOBS_DIR" not in str(worker_environment(parse({}), {}))


def test_tls_is_known_however_it_was_set() -> None:
    assert not speaks_tls(parse({}))
    assert speaks_tls(parse({"tls_cert": "/c", "tls_key": "/k"}))
    variables = {f"env.FIELDPOST_SERVER_TLS_{name}": "/x" for name in ("CERT", "KEY")}
    assert speaks_tls(parse(variables))
    assert not speaks_tls(parse({"tls_cert": "/c", "tls_key": "/k"} | dict.fromkeys(variables, "")))


def test_jobs_are_kept_with_the_deployment_unless_the_user_says_where(tmp_path: Path) -> None:
    name = "FIELDPOST_SERVER_JOBS_DIR"
    assert worker_environment(parse({}), {}, tmp_path)[name] == str(tmp_path / "jobs")
    assert worker_environment(parse({"jobs_dir": "/j"}), {}, tmp_path)[name] == "/j"
    assert worker_environment(parse({f"env.{name}": "/e"}), {}, tmp_path)[name] == "/e"
