"""Registries that are reached through a proxy."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest

from scoring.errors import RegistryError, UnreachableError
from serve.distribution.connections import find_proxy
from serve.distribution.hosts import Hosts
from serve.distribution.pulling import pull
from serve.distribution.pushing import push
from serve.distribution.reference import parse_reference
from tests.support.certificates import Authority
from tests.support.connectproxy import ConnectProxy
from tests.support.oci import SmallImage, make_image, make_store
from tests.support.registry import DockerRegistry, is_installed, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve.distribution.options import Options

HOST = "registry.invalid:5443"
PLAIN = "plain.invalid:5000"


@pytest.fixture
def image(tmp_path: Path) -> SmallImage:
    return make_image(make_store(tmp_path / "store"), [os.urandom(3 << 20), b"small"])


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def secure(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[DockerRegistry, Path]]:
    """Debian's registry with TLS, and the certificate of its authority."""
    if not is_installed():
        pytest.skip("docker-registry is not installed")
    folder = tmp_path_factory.mktemp("secure")
    authority = Authority()
    made = authority.issue(folder, "server", host=HOST.partition(":")[0])
    with running(folder / "registry", certificate=made) as found:
        yield found, authority.write(folder / "ca.crt")


def send(image: SmallImage, host: str, options: Options) -> None:
    push(image.root, image.content, parse_reference(f"{host}/a/b:1"), options=options)


def fetch(host: str, folder: Path, options: Options) -> str:
    return pull(parse_reference(f"{host}/a/b:1"), make_store(folder), options=options).root.digest


@pytest.mark.parametrize("login", ["", "ada:p@ss/w\u00f6rd:%"], ids=["open", "with a login"])
def test_a_registry_with_tls_behind_a_proxy(
    secure: tuple[DockerRegistry, Path],
    image: SmallImage,
    options: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    login: str,
) -> None:
    registry, authority = secure
    folder = tmp_path / "root" / "etc" / "docker" / "certs.d" / HOST
    folder.mkdir(parents=True)
    shutil.copy(authority, folder / "ca.crt")
    before = "ada:p%40ss%2Fw%C3%B6rd%3A%25@" if login else ""
    with ConnectProxy({HOST: registry.port}, login) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{before}127.0.0.1:{proxy.port}")
        send(image, HOST, options)
        assert fetch(HOST, tmp_path / "back", options) == image.root.digest
        if shutil.which("skopeo"):
            inspect = ["skopeo", "inspect", "--format", "{{.Digest}}", "--cert-dir", str(folder)]
            seen = subprocess.run(
                [*inspect, f"docker://{HOST}/a/b:1"],
                check=True,
                capture_output=True,
                text=True,
            )
            assert seen.stdout.strip() == image.root.digest
    assert {each.rpartition(" ")[0] for each in proxy.asked} == {f"CONNECT {HOST}"}


def test_a_registry_without_tls_behind_a_proxy(
    registry: DockerRegistry,
    image: SmallImage,
    options: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = Hosts({"HOME": str(tmp_path)}, plain_http=[PLAIN], root=tmp_path / "root")
    plain = msgspec.structs.replace(options, hosts=hosts)
    with ConnectProxy({PLAIN: registry.port}, "ada:pw") as proxy:
        monkeypatch.setenv("http_proxy", f"ada:pw@127.0.0.1:{proxy.port}")
        send(image, PLAIN, plain)
        assert fetch(PLAIN, tmp_path / "back", plain) == image.root.digest
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        with pytest.raises(RegistryError, match=f"proxy before {PLAIN} wants a login"):
            fetch(PLAIN, tmp_path / "none", plain)
    assert f"PUT http://{PLAIN}/v2/a/b/manifests/1 HTTP/1.1" in proxy.asked


@pytest.mark.parametrize(
    ("login", "words"),
    [("ada:wrong-s3cret@", "407"), ("ada:s3cret@", "502")],
    ids=["a wrong login", "a proxy without a way"],
)
def test_a_proxy_that_refuses_is_named(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str, words: str
) -> None:
    with ConnectProxy({}, "ada:s3cret") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{login}127.0.0.1:{proxy.port}")
        with pytest.raises(UnreachableError, match=words) as caught:
            fetch(HOST, tmp_path / "none", options)
    assert f"proxy 127.0.0.1:{proxy.port}" in caught.value.message
    assert "s3cret" not in str(caught.value.to_dict())


def test_a_proxy_that_is_not_there_is_named(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:s3cret@127.0.0.1:1")
    with pytest.raises(UnreachableError, match=r"proxy 127\.0\.0\.1:1 .*nothing listens") as caught:
        fetch(HOST, tmp_path / "none", options)
    assert "s3cret" not in str(caught.value.to_dict())


@pytest.mark.parametrize(
    "proxy",
    ["http://ada:s3c/ret@h:1", "socks5://ada:s3cret@h:1", "http://ada:s3cret@h:x", "http://"],
)
def test_a_proxy_that_is_none_is_told_and_not_quoted(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(RegistryError, match="proxy in the environment") as caught:
        fetch(HOST, tmp_path / "none", options)
    assert "s3c" not in str(caught.value.to_dict())
    assert "HTTPS_PROXY" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        ("r.io", False),
        ("localhost:5000", True),
        ("127.0.0.9:5000", True),
        ("[::1]:5000", True),
        ("10.1.2.3:5000", True),
        ("11.1.2.3:5000", False),
        ("[fd00::1]:5000", True),
        ("a.corp.io:5000", True),
        ("corp.io", False),
        ("x.team.io", True),
        ("team.io", True),
        ("exact.io:443", True),
        ("notexact.io", False),
    ],
)
def test_who_is_asked_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str, direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, fd00::/8,*.corp.io, .team.io,exact.io")
    assert find_proxy("https", host) == ("" if direct else "http://p:1")


def test_nobody_is_asked_through_a_proxy_where_all_are_excepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://p:1")
    assert find_proxy("http", "r.io") == ""
    assert find_proxy("https", "r.io") == "http://p:1"
    monkeypatch.setenv("no_proxy", "*")
    assert find_proxy("https", "r.io") == ""
