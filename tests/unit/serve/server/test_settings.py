"""Flag over environment over default; unknown names and impossible values fail."""

from __future__ import annotations

import os
from dataclasses import fields

import pytest

from scoring.errors import UsageError
from scoring.workercontract import Contract
from serve.server.settings import PREFIX, ServerSettings, from_environment


def test_defaults_are_finite_and_on_loopback() -> None:
    settings = from_environment({})
    assert settings.host == "127.0.0.1"
    assert all(
        0 <= value < float("inf") for _, value in settings.items() if not isinstance(value, str)
    )


def test_a_flag_wins_over_the_environment() -> None:
    environment = {PREFIX + "PORT": "7000", PREFIX + "BODY_TIMEOUT_S": "1.5"}
    settings = from_environment(environment, port=8000, host=None)
    assert (settings.port, settings.body_timeout_s) == (8000, 1.5)
    assert settings.host == "127.0.0.1"


def test_settings_survive_the_environment() -> None:
    settings = ServerSettings(port=0, threads=7, inline_ms=0, azureml_compat="strict")
    assert from_environment(settings.to_environment()) == settings


def test_other_variables_are_not_ours() -> None:
    assert from_environment({"FIELDPOST_WORKSPACE": "x", "PATH": "/"}) == ServerSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BODY", "5"),
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("THREADS", "0"),
        ("THREADS", "1.5"),
        ("BODY_TIMEOUT_S", "0"),
        ("BODY_TIMEOUT_S", "nan"),
        ("BODY_TIMEOUT_S", "inf"),
        ("MAX_BODY_BYTES", "-1"),
        ("DRAIN_IDLE_S", "-1"),
        ("AZUREML_COMPAT", "loose"),
        ("HOST", ""),
    ],
)
def test_wrong_values_fail_with_their_name(name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_environment({PREFIX + name: value})
    assert name.lower() in (caught.value.where + caught.value.message).lower()


def test_an_unknown_flag_fails() -> None:
    with pytest.raises(UsageError, match="--max-boody"):
        from_environment({}, max_boody=1)


def test_the_contract_reads_open_descriptors() -> None:
    reading, writing = os.pipe()
    try:
        contract = Contract.from_environment({"FIELDPOST_STATUS_FD": str(writing)})
        assert contract == Contract(status_fd=writing)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(UsageError, match="FIELDPOST_STATUS_FD"):
        Contract.from_environment({"FIELDPOST_STATUS_FD": str(writing)})


@pytest.mark.parametrize("text", ["one", "-1", "99999999999999999999"])
def test_other_descriptors_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Contract.from_environment({"FIELDPOST_LISTEN_FD": text})


def test_the_contract_reads_several_descriptors_and_a_place() -> None:
    given = {"LISTEN_FD": "0,1", "SPARE_FD": "2", "WORKER_SLOT": "3", "WORKER_COUNT": "4"}
    contract = Contract.from_environment({f"FIELDPOST_{name}": given[name] for name in given})
    assert contract == Contract((0, 1), (2,), worker_slot=3, worker_count=4)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LISTEN_FD", "0,"),
        ("LISTEN_FD", "0;1"),
        ("SPARE_FD", "99999"),
        ("COVER_FD", "0,1"),
        ("WORKER_SLOT", "-1"),
        ("WORKER_SLOT", "1"),
        ("WORKER_COUNT", "many"),
        ("WORKER_COUNT", "0"),
        ("WORKER_COUNT", "99999999999"),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError):
        Contract.from_environment({f"FIELDPOST_{name}": text})


def test_every_descriptor_has_its_variable() -> None:
    assert len(Contract.variables()) == len(fields(Contract))
    assert "FIELDPOST_LIFELINE_FD" in Contract.variables()


def test_every_setting_is_documented() -> None:
    assert ServerSettings.__doc__ is not None
    for field in fields(ServerSettings):
        assert f"{field.name}: " in ServerSettings.__doc__
