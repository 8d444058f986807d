"""Which proxy leads to a host."""

from __future__ import annotations

import pytest

from serve.server.telemetry.proxies import proxy_for


@pytest.fixture(autouse=True)
def _none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "scheme", "expected"),
    [
        ({}, "http", None),
        ({"http_proxy": "http://p:3128"}, "http", ("p", 3128)),
        ({"http_proxy": "http://p:3128"}, "https", None),
        ({"HTTPS_PROXY": "p"}, "https", ("p", 80)),
        ({"ALL_PROXY": "http://[::1]:8080/"}, "https", ("::1", 8080)),
        ({"http_proxy": "", "no_proxy": "x"}, "http", None),
    ],
)
def test_the_variables_say_it(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    scheme: str,
    expected: tuple[str, int] | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_for(scheme, "collector.example")
    assert (found and (found.host, found.port)) == expected


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [
        ("*", "c", True),
        ("collector.example", "collector.example", True),
        (".example", "collector.example", True),
        ("example.org,localhost", "localhost", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8, fd00::/8", "fd00::1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "c", False),
        ("other", "c", False),
    ],
)
def test_some_hosts_need_none(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, host: str, *, direct: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://p")
    monkeypatch.setenv("no_proxy", exceptions)
    assert (proxy_for("http", host) is None) == direct


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hunter2@p")
    found = proxy_for("http", "c")
    assert found is not None
    assert found.headers == {"proxy-authorization": "Basic bWU6aHVudGVyMg=="}
    assert "bWU6" not in repr(found)


@pytest.mark.parametrize("url", ["https://me:hunter2@p", "socks5h://me:hunter2@p", "http://"])
def test_a_kind_that_is_not_supported(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("http_proxy", url)
    with pytest.raises(OSError, match="none of HTTP") as caught:
        proxy_for("http", "c")
    assert "hunter2" not in str(caught.value)
