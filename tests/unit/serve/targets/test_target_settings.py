from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import UsageError
from serve.targets.local.settings import LocalSettings, worker_environment
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
