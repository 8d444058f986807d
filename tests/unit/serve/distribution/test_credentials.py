"""Logins from the files and helpers that users have."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import RegistryDeniedError, RegistryError
from serve.distribution.credentials import Credential, Logins
from serve.distribution.reference import Reference, parse_reference

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "p:äss word"


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def find(tmp_path: Path, reference: str, **environ: str) -> Credential | None:
    given = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run"), **environ}
    return Logins(given).find(parse_reference(reference))


def write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        ("r.io", "r.io/a"),
        ("https://r.io", "r.io/a"),
        ("https://r.io/v2/", "r.io/a"),
        ("http://r.io/v1/", "r.io/a"),
        ("r.io:5000", "r.io:5000/a"),
        ("r.io/team", "r.io/team/a"),
        ("https://index.docker.io/v1/", "iris"),
        ("docker.io", "team/iris"),
    ],
)
def test_finds_a_login_under_its_key(tmp_path: Path, key: str, reference: str) -> None:
    write(tmp_path / ".docker" / "config.json", {"auths": {key: {"auth": auth("ada", SECRET)}}})
    found = find(tmp_path, reference)
    assert found is not None
    assert (found.username, found.password) == ("ada", SECRET)
    assert found.basic() == f"Basic {auth('ada', SECRET)}"


@pytest.mark.parametrize("reference", ["r.io:5000/a", "x.r.io/a", "iris", "r.io.evil.com/a"])
def test_no_other_host_gets_it(tmp_path: Path, reference: str) -> None:
    write(tmp_path / ".docker" / "config.json", {"auths": {"r.io": {"auth": auth("a", "b")}}})
    assert find(tmp_path, reference) is None


def test_the_nearest_folder_wins(tmp_path: Path) -> None:
    auths = {"r.io": {"auth": auth("all", "1")}, "r.io/team": {"auth": auth("team", "2")}}
    write(tmp_path / "run" / "containers" / "auth.json", {"auths": auths})
    near, far = find(tmp_path, "r.io/team/a"), find(tmp_path, "r.io/teams/a")
    assert near is not None
    assert far is not None
    assert (near.username, far.username) == ("team", "all")


def test_files_are_asked_in_their_order(tmp_path: Path) -> None:
    for name, path in (
        ("config", tmp_path / ".config" / "containers" / "auth.json"),
        ("docker", tmp_path / "elsewhere" / "config.json"),
        ("named", tmp_path / "named.json"),
    ):
        write(path, {"auths": {"r.io": {"auth": auth(name, "x")}}})
    named = {"REGISTRY_AUTH_FILE": str(tmp_path / "named.json")}
    docker = {"DOCKER_CONFIG": str(tmp_path / "elsewhere")}
    inline = json.dumps({"auths": {"r.io": {"auth": auth("inline", "x")}}})
    for environ, name in (
        ({}, "config"),
        (docker, "docker"),
        (docker | named, "named"),
        (docker | named | {"DOCKER_AUTH_CONFIG": inline}, "inline"),
    ):
        found = find(tmp_path, "r.io/a", **environ)
        assert found is not None
        assert found.username == name


def test_tokens_of_all_kinds(tmp_path: Path) -> None:
    auths = {
        "a.io": {"auth": auth("u", "p"), "identitytoken": "identity"},
        "b.io": {"registrytoken": "bearer"},
        "c.io": {"auth": auth("<token>", "identity")},
        "d.io": {},
        "e.io": {"username": "u", "password": "p"},
    }
    write(tmp_path / ".docker" / "config.json", {"auths": auths})
    found = [find(tmp_path, f"{host}.io/x") for host in "abcde"]
    assert [each and each.identity_token for each in found] == [
        "identity",
        "",
        "identity",
        None,
        "",
    ]
    assert found[1] is not None
    assert found[1].registry_token == "bearer"
    assert found[4] is not None
    assert found[4].password == "p"


def helper(tmp_path: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bin" / f"docker-credential-{name}"
    write(path, f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def test_a_helper_is_asked_for_its_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = '{"ServerURL":"x","Username":"ada","Secret":"s3cret"}'
    script = f'read server; [ "$1 $server" = "get r.io" ] && echo \'{answer}\''
    helper(tmp_path, "vault", script, monkeypatch)
    config = {"credHelpers": {"r.io": "vault"}, "auths": {"s.io": {"auth": auth("file", "x")}}}
    write(tmp_path / ".docker" / "config.json", config)
    found, other = find(tmp_path, "r.io/a"), find(tmp_path, "s.io/a")
    assert found is not None
    assert other is not None
    assert (found.username, found.password, other.username) == ("ada", "s3cret", "file")


def test_a_store_that_has_nothing_leaves_it_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo credentials not found in native keychain; exit 1"
    helper(tmp_path, "store", script, monkeypatch)
    config = {"credsStore": "store", "auths": {"r.io": {"auth": auth("file", "x")}}}
    write(tmp_path / ".docker" / "config.json", config)
    found = find(tmp_path, "r.io/a")
    assert found is not None
    assert found.username == "file"
    assert find(tmp_path, "q.io/a") is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "status 3"),
        ("echo no json", "no login"),
        ("echo '[]'", "no login"),
        ("head -c 200000 /dev/zero | tr '\\0' '['", "no login"),
        ('echo \'{"Username":1,"Secret":"x"}\'', "no login"),
    ],
)
def test_a_helper_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    helper(tmp_path, "bad", script, monkeypatch)
    write(tmp_path / ".docker" / "config.json", {"credsStore": "bad"})
    with pytest.raises(RegistryDeniedError, match=reason):
        find(tmp_path, "r.io/a")


@pytest.mark.parametrize("name", ["missing-one", "../../bin/sh", "a b"])
def test_a_helper_that_is_no_program(tmp_path: Path, name: str) -> None:
    write(tmp_path / ".docker" / "config.json", {"credHelpers": {"r.io": name}})
    with pytest.raises(RegistryDeniedError, match="fails"):
        find(tmp_path, "r.io/a")


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\udcff", '{"auths": {"r.io": {"auth": "?"}}}'])
def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / ".docker" / "config.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RegistryError) as caught:
        find(tmp_path, "r.io/a")
    assert str(path) in caught.value.message


def test_nothing_there_is_no_login(tmp_path: Path) -> None:
    assert find(tmp_path, "r.io/a") is None
    write(tmp_path / ".docker" / "config.json", "")
    assert find(tmp_path, "r.io/a") is None


def test_secrets_are_not_shown() -> None:
    for each in (
        Credential("ada", SECRET),
        Credential(identity_token=SECRET),
        Credential(registry_token=SECRET),
    ):
        assert SECRET not in repr(each)
        assert SECRET not in str(each)


def test_a_reference_without_repository_has_keys(tmp_path: Path) -> None:
    write(tmp_path / ".docker" / "config.json", {"auths": {"r.io": {"auth": auth("a", "b")}}})
    given = {"HOME": str(tmp_path)}
    assert Logins(given).find(Reference("r.io", "")) is not None
