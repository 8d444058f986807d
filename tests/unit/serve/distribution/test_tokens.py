"""Who we are to a registry."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from scoring.errors import RegistryDeniedError, RegistryError
from serve.distribution.credentials import Credential
from serve.distribution.tokens import Authorizer

BEARER = 'Bearer realm="https://auth.io/token",service="s",scope="repository:a:pull"'
PULL = frozenset({"repository:a:pull"})
PUSH = frozenset({"repository:a:pull,push"})


class Service:
    """A token service, and a clock."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes | None]] = []
        self.answer: tuple[int, Any] = (200, None)
        self.now = 0.0

    def __call__(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, bytes, str]:
        self.asked.append((method, url, headers, body))
        status, document = self.answer
        if document is None:
            document = {"token": f"t{len(self.asked)}", "expires_in": 300}
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        return status, data, "application/json"

    @property
    def scopes(self) -> list[str]:
        return parse_qs(urlsplit(self.asked[-1][1]).query).get("scope", [])


def make(service: Service, credential: Credential | None = None, secure: bool = True) -> Authorizer:
    return Authorizer(
        "r.io",
        lambda: credential,
        service,
        secure=lambda: secure,
        clock=lambda: service.now,
    )


def test_nothing_is_sent_before_it_is_asked_for() -> None:
    service = Service()
    assert make(service, Credential("ada", "pw")).header(PULL) is None
    assert not service.asked


def test_a_token_is_fetched_once_for_a_scope() -> None:
    service = Service()
    authorizer = make(service, Credential("ada", "pw"))
    authorizer.challenged(BEARER, PULL, None)
    assert authorizer.header(PULL) == authorizer.header(PULL) == "Bearer t1"
    assert authorizer.header(PUSH) == "Bearer t2"
    assert service.scopes == ["repository:a:pull,push"]
    method, url, headers, _ = service.asked[0]
    assert method == "GET"
    assert parse_qs(urlsplit(url).query)["account"] == ["ada"]
    assert headers["Authorization"].startswith("Basic ")
    assert "pw" not in url


def test_a_token_under_its_other_name() -> None:
    service = Service()
    service.answer = (200, {"token": None, "access_token": "other", "expires_in": None})
    authorizer = make(service)
    authorizer.challenged(BEARER, PULL, None)
    assert authorizer.header(PULL) == "Bearer other"


def test_a_token_that_ends_is_fetched_anew() -> None:
    service = Service()
    authorizer = make(service)
    authorizer.challenged(BEARER, PULL, None)
    assert authorizer.header(PULL) == "Bearer t1"
    service.now = 280
    assert authorizer.header(PULL) == "Bearer t1"
    service.now = 291
    assert authorizer.header(PULL) == "Bearer t2"


def test_a_token_that_is_refused_is_fetched_anew_by_one_thread() -> None:
    service = Service()
    authorizer = make(service)
    authorizer.challenged(BEARER, PULL, None)
    first = authorizer.header(PULL)
    authorizer.challenged(BEARER, PULL, first)
    second = authorizer.header(PULL)
    authorizer.challenged(BEARER, PULL, first)  # of a thread that was late
    assert authorizer.header(PULL) == second
    assert len(service.asked) == 2


def test_what_the_registry_names_otherwise_is_asked_for_too() -> None:
    service = Service()
    authorizer = make(service)
    authorizer.challenged(BEARER.replace("repository:a", "repository:real/a"), PUSH, None)
    authorizer.header(PUSH)
    assert service.scopes == ["repository:a:pull,push", "repository:real/a:pull"]


def test_an_identity_token_is_exchanged() -> None:
    service = Service()
    authorizer = make(service, Credential(identity_token="identity"))
    authorizer.challenged(BEARER, PULL, None)
    assert authorizer.header(PULL) == "Bearer t1"
    method, url, headers, body = service.asked[0]
    assert (method, url) == ("POST", "https://auth.io/token")
    form = parse_qs((body or b"").decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["identity"]
    assert form["scope"] == ["repository:a:pull"]
    assert "Authorization" not in headers


def test_a_registry_token_is_sent_as_it_is() -> None:
    service = Service()
    authorizer = make(service, Credential(registry_token="mine"))
    authorizer.challenged(BEARER, PULL, None)
    assert authorizer.header(PULL) == "Bearer mine"
    assert not service.asked


def test_a_password_is_sent_where_it_is_asked_for() -> None:
    authorizer = make(Service(), Credential("ada", "pw"))
    authorizer.challenged('Basic realm="x"', PULL, None)
    header = authorizer.header(PULL)
    assert header == Credential("ada", "pw").basic()
    with pytest.raises(RegistryDeniedError, match="does not take the login of ada"):
        authorizer.challenged('Basic realm="x"', PULL, header)


def test_no_login_where_one_is_wanted() -> None:
    with pytest.raises(RegistryDeniedError, match="none for it") as caught:
        make(Service()).challenged('Basic realm="x"', PULL, None)
    assert "docker login r.io" in caught.value.hint


def test_an_unknown_way_to_log_in() -> None:
    with pytest.raises(RegistryDeniedError, match="does not know"):
        make(Service()).challenged("Negotiate", PULL, None)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (
            (401, {"errors": [{"code": "DENIED", "message": "no"}]}),
            RegistryDeniedError,
            "DENIED: no",
        ),
        ((403, b"<html>"), RegistryDeniedError, "does not take"),
        ((404, b"<html>"), RegistryError, "web page where a token"),
        ((200, b"<html>"), RegistryError, "web page"),
        ((200, b"[]"), RegistryError, "no such document"),
        ((200, {}), RegistryError, "no such document"),
        ((200, {"token": "a\r\nX: y"}), RegistryError, "no such document"),
        ((200, {"token": 3}), RegistryError, "no such document"),
    ],
)
def test_a_token_service_that_fails(
    answer: tuple[int, Any], kind: type[Exception], reason: str
) -> None:
    service = Service()
    service.answer = answer
    authorizer = make(service, Credential("ada", "the-password"))
    authorizer.challenged(BEARER, PULL, None)
    with pytest.raises(kind, match=reason) as caught:
        authorizer.header(PULL)
    assert "the-password" not in str(caught.value)


@pytest.mark.parametrize(
    "realm", ["http://auth.io/token", "", "ftp://auth.io", "https://", "//auth.io", "https://[x"]
)
def test_a_token_service_in_the_clear_sees_no_login(realm: str) -> None:
    service = Service()
    authorizer = make(service, Credential("ada", "pw"))
    authorizer.challenged(f'Bearer realm="{realm}"', PULL, None)
    with pytest.raises(RegistryError, match="token service"):
        authorizer.header(PULL)
    assert not service.asked


def test_in_the_clear_is_enough_for_a_registry_in_the_clear() -> None:
    service = Service()
    authorizer = make(service, secure=False)
    authorizer.challenged('Bearer realm="http://auth.io/token"', PULL, None)
    assert authorizer.header(PULL) == "Bearer t1"
