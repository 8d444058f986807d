"""How registries are reached, by the files that engines have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import RegistryDeniedError, RegistryError
from serve.distribution.hosts import Hosts, Place, is_loopback
from serve.distribution.reference import parse_reference

if TYPE_CHECKING:
    from pathlib import Path


def hosts(tmp_path: Path, **given: Any) -> Hosts:
    return Hosts({"HOME": str(tmp_path / "home")}, root=tmp_path, **given)


def daemon(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "etc" / "docker" / "daemon.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))


def conf(tmp_path: Path, text: str, name: str = "registries.conf") -> None:
    path = tmp_path / "etc" / "containers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(places: list[Place]) -> list[str]:
    return [str(place.reference) for place in places]


@pytest.mark.parametrize(
    ("registry", "local"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("r.localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("10.0.0.1:5000", False),
        ("localhost.evil.com", False),
        ("127.0.0.1.evil.com:80", False),
        ("r.io", False),
    ],
)
def test_what_is_on_this_machine(registry: str, local: bool) -> None:
    assert is_loopback(registry) is local


def schemes(found: Hosts, text: str) -> tuple[str, ...]:
    return found.schemes(found.place(parse_reference(text)))


def test_plain_http_is_for_this_machine_or_on_demand(tmp_path: Path) -> None:
    assert schemes(hosts(tmp_path), "r.io/a") == ("https",)
    assert schemes(hosts(tmp_path), "10.0.0.1:5000/a") == ("https",)
    assert schemes(hosts(tmp_path), "localhost:5000/a") == ("http", "https")
    assert schemes(hosts(tmp_path, plain_http=True), "r.io/a") == ("http",)
    assert schemes(hosts(tmp_path, plain_http=["r.io"]), "r.io/a") == ("http",)
    assert schemes(hosts(tmp_path, plain_http=["r.io"]), "s.io/a") == ("https",)


def test_an_authority_for_this_machine_asks_for_https(tmp_path: Path) -> None:
    (tmp_path / "etc" / "docker" / "certs.d" / "localhost:5000").mkdir(parents=True)
    assert schemes(hosts(tmp_path), "localhost:5000/a") == ("https",)


@pytest.mark.parametrize("listed", ["r.io:5000", "r.io"])
def test_insecure_registries_of_the_daemon(tmp_path: Path, listed: str) -> None:
    daemon(tmp_path, {"insecure-registries": [listed, "10.1.0.0/16"]})
    found = hosts(tmp_path)
    assert schemes(found, "r.io:5000/a") == ("https", "http")
    assert schemes(found, "10.1.2.3:5000/a") == ("https", "http")
    assert schemes(found, "10.2.2.3:5000/a") == ("https",)
    assert found.tls(found.place(parse_reference("r.io:5000/a"))).check_hostname is False
    assert found.tls(found.place(parse_reference("s.io/a"))).check_hostname is True


def test_mirrors_of_docker_hub_come_first(tmp_path: Path) -> None:
    daemon(tmp_path, {"registry-mirrors": ["https://m.io", "http://n.io:5000/"]})
    found = hosts(tmp_path).places(parse_reference("iris:1"))
    assert names(found) == [
        "m.io/library/iris:1",
        "n.io:5000/library/iris:1",
        str(found[-1].reference),
    ]
    assert [each.mirror for each in found] == [True, True, False]
    assert [each.insecure for each in found] == [False, True, False]
    assert names(hosts(tmp_path).places(parse_reference("r.io/iris:1"))) == ["r.io/iris:1"]
    assert not hosts(tmp_path).place(parse_reference("iris")).mirror


CONF = """
[[registry]]
prefix = "r.io/team"
location = "inner.io/moved"
[[registry.mirror]]
location = "m.io/copies"
insecure = true
[[registry.mirror]]
location = "d.io"
pull-from-mirror = "digest-only"
[[registry]]
location = "r.io"
[[registry]]
location = "bad.io"
blocked = true
[[registry]]
prefix = "*.corp.io"
insecure = true
"""
D = "sha256:" + "a" * 64


def test_rules_of_registries_conf(tmp_path: Path) -> None:
    conf(tmp_path, CONF)
    found = hosts(tmp_path)
    assert names(found.places(parse_reference("r.io/team/iris:1"))) == [
        "m.io/copies/iris:1",
        "inner.io/moved/iris:1",
    ]
    assert names(found.places(parse_reference(f"r.io/team/iris@{D}"))) == [
        f"m.io/copies/iris@{D}",
        f"d.io/iris@{D}",
        f"inner.io/moved/iris@{D}",
    ]
    assert names(found.places(parse_reference("r.io/teams/iris:1"))) == ["r.io/teams/iris:1"]
    assert schemes(found, "x.corp.io/a") == ("https", "http")
    with pytest.raises(RegistryDeniedError, match="blocked"):
        found.places(parse_reference("bad.io/iris"))
    with pytest.raises(RegistryDeniedError, match="blocked"):
        found.place(parse_reference("bad.io/iris"))  # what a push asks for


def test_drop_ins_and_a_file_of_ones_own(tmp_path: Path) -> None:
    conf(tmp_path, '[[registry]]\nlocation = "r.io"\n')
    conf(tmp_path, '[[registry]]\nlocation = "r.io"\nblocked = true\n', "registries.conf.d/x.conf")
    with pytest.raises(RegistryDeniedError):
        hosts(tmp_path).places(parse_reference("r.io/a"))
    own = tmp_path / "own.conf"
    own.write_text("")
    free = Hosts({"CONTAINERS_REGISTRIES_CONF": str(own)}, root=tmp_path)
    assert names(free.places(parse_reference("r.io/a"))) == ["r.io/a"]


@pytest.mark.parametrize("text", ["[[registry]", "registry = 1", "[registry]\nx = 1", "\x00"])
def test_a_conf_that_is_none(tmp_path: Path, text: str) -> None:
    conf(tmp_path, text)
    try:
        found = hosts(tmp_path).places(parse_reference("r.io/a"))
    except RegistryError as error:
        assert "registries.conf" in error.where  # noqa: PT017 - either is right
    else:
        assert names(found) == ["r.io/a"]


@pytest.mark.parametrize("document", [[], 3, {"registry-mirrors": 3}, {"insecure-registries": [1]}])
def test_an_odd_daemon_json(tmp_path: Path, document: object) -> None:
    daemon(tmp_path, document)
    assert names(hosts(tmp_path).places(parse_reference("iris"))) == ["docker.io/library/iris"]


def test_a_broken_authority_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "etc" / "docker" / "certs.d" / "r.io"
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text("no certificate")
    found = hosts(tmp_path)
    with pytest.raises(RegistryError, match=r"ca\.crt"):
        found.tls(found.place(parse_reference("r.io/a")))
