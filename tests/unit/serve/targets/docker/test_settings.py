from typing import Any

import pytest

from scoring.errors import UsageError
from serve.targets.base import find_target
from serve.targets.docker.settings import (
    DockerSettings,
    files_of,
    labels_of,
    parse,
    parse_size,
    volumes_of,
)


def test_defaults() -> None:
    settings = parse({})
    assert settings == DockerSettings()
    assert (settings.restart, settings.read_only, settings.memory_bytes) == (
        "unless-stopped",
        True,
        0,
    )


def test_both_targets_take_them() -> None:
    for name in ("docker", "podman"):
        target = find_target(name)
        assert (target.name, target.Settings) == (name, DockerSettings)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("512MiB", 512 << 20),
        ("2Gi", 2 << 30),
        ("2g", 2 << 30),
        ("1.5g", 3 << 29),
        ("1T", 1 << 40),
        ("1073741824", 1 << 30),
        ("1073741824b", 1 << 30),
        (" 64000 k ", 64_000 << 10),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("memory", text) == size


@pytest.mark.parametrize(
    "text", ["", "m", "-1g", "1 gig", "0", "512", "1m", "\uff11g", "1e3m", "nan"]
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_size("memory", text)
    assert error.value.where == "memory"
    assert "memory=512m" in error.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": "lots"},
        {"tmp": "1"},
        {"cpus": "0"},
        {"cpus": "nan"},
        {"gpus": "some"},
        {"gpus": "-1"},
        {"restart": "sometimes"},
        {"network": "host"},
        {"network": ""},
        {"user": "a b"},
        {"user": "1:2:3"},
        {"read_only": "perhaps"},
        {"pids": "1"},
        {"volumes": "relative"},
        {"volumes": "/a:b"},
        {"volumes": "/a:/b:xx"},
        {"labels": "nothing"},
        {"labels": "=x"},
        {"labels": "dev.fieldpost.role=front"},
        {"base": "a", "image": "b"},
        {"workers": "0"},
        {"port": "70000"},
        {"server.nothing": "1"},
        {"tls_cert": "relative.pem", "tls_key": "/k.pem"},
        {"tls_cert": "/c.pem"},
        {"max_restarts": "3"},
        {"memroy": "1g"},
    ],
)
def test_values_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        parse(wrong)


def test_a_typo_is_guessed() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'memory'\?"):
        parse({"memroy": "1g"})


def test_volumes() -> None:
    settings = parse({"volumes": "/data:/models:ro,cache:/cache"})
    assert list(volumes_of(settings)) == [
        {"Type": "bind", "Source": "/data", "Target": "/models", "ReadOnly": True},
        {"Type": "volume", "Source": "cache", "Target": "/cache", "ReadOnly": False},
    ]


def test_files_that_settings_name_are_mounted_once_where_they_are() -> None:
    given = {
        "tls_cert": "/etc/tls/both.pem",
        "tls_key": "/etc/tls/both.pem",
        "api_keys": "/keys/list",
        "volumes": "/somewhere:/keys:ro",
        "server.oidc_jwks": "https://issuer/keys",
    }
    assert [mount["Source"] for mount in files_of(parse(given))] == ["/etc/tls/both.pem"]


def test_labels() -> None:
    assert labels_of(parse({"labels": "a=1,b=x=y,c="})) == {"a": "1", "b": "x=y", "c": ""}
