"""Tokens: what is taken, what is refused, and where the keys come from."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scoring.errors import FieldpostError, UnauthorizedError, UnreachableError, UsageError
from serve.server.access import fetching, jwks, oidc
from serve.server.access import issuer as issuers
from serve.server.access.fetching import FetchError, signing_keys
from serve.server.access.issuer import Issuer as Keys
from tests.support.issuer import (
    AUDIENCE,
    EC_KEY,
    ED_KEY,
    OTHER_RSA_KEY,
    RSA_KEY,
    Issuer,
    Loop,
    jwk,
    token,
)

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://issuer.test"


def published(*entries: Any) -> tuple[jwks.SigningKey, ...]:
    return jwks.parse(json.dumps({"keys": entries}).encode())


ALL = published(jwk(RSA_KEY, "one"), jwk(EC_KEY, "curve"), jwk(ED_KEY, "edwards"))


def verify(text: str, keys: tuple[jwks.SigningKey, ...] = ALL) -> dict[str, Any] | None:
    return oidc.verify(text, keys, issuer=URL, audience=AUDIENCE)


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"),
    [
        *((RSA_KEY, "one", name) for name in ("RS256", "RS384", "RS512", "PS256", "PS512")),
        (EC_KEY, "curve", "ES256"),
        (ED_KEY, "edwards", "EdDSA"),
        (RSA_KEY, None, "RS256"),
    ],
)
def test_good_tokens_are_taken(key: Any, kid: str | None, algorithm: str) -> None:
    claims = verify(token(URL, key, kid, algorithm, name="x"))
    assert claims is not None
    assert claims["sub"] == "someone"


def from_now(changes: dict[str, Any]) -> dict[str, Any]:
    """Times of a token, given in seconds from now."""
    times = {"exp", "nbf"}
    return {
        name: value + time.time() if name in times and isinstance(value, int) else value
        for name, value in changes.items()
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exp": -60}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "not valid"),
        ({"nbf": 90}, "not valid"),
        ({"iss": "https://other.test"}, "issuer"),
        ({"iss": None}, "iss"),
        ({"aud": "other"}, "udience"),
        ({"aud": None}, "aud"),
        ({"aud": 7}, "Invalid claim"),
        ({"sub": None}, "sub"),
        ({"sub": 7}, "ubject"),
        ({"key": OTHER_RSA_KEY}, "ignature"),
        ({"headers": {"crit": ["x"], "x": 1}}, "no signed token"),
        ({"kid": "curve"}, "key is not for"),
    ],
)
def test_bad_tokens_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UnauthorizedError, match=said) as refused:
        verify(token(URL, **from_now(changes)))
    assert refused.value.hint


@pytest.mark.parametrize("changes", [{"exp": -5}, {"nbf": 5}, {"aud": ["a", AUDIENCE]}])
def test_clocks_may_differ_a_little(changes: dict[str, Any]) -> None:
    assert verify(token(URL, **from_now(changes))) is not None


def test_an_unknown_key_is_no_refusal_yet() -> None:
    assert verify(token(URL, kid="two")) is None
    assert verify(token(URL), ()) is None


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "text",
    ["", "a", "a.b.c", "..", f"{_part({'alg': 'RS256'})}.e30", f"{_part({})}.e30.",
     f"{_part({'alg': 'RS256', 'kid': 7})}.e30.", "é.é.é"],
)  # fmt: skip
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(UnauthorizedError):
        verify(text)


def test_tokens_without_a_signature_are_refused() -> None:
    claims = {"iss": URL, "aud": AUDIENCE, "sub": "x", "exp": time.time() + 60}
    for algorithm in ("none", "None", "NONE"):
        text = f"{_part({'alg': algorithm, 'kid': 'one'})}.{_part(claims)}."
        with pytest.raises(UnauthorizedError, match="not taken"):
            verify(text)


def test_a_public_key_is_no_shared_secret() -> None:
    public = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    import hashlib
    import hmac

    head = _part({"alg": "HS256", "kid": "one"})
    body = _part({"iss": URL, "aud": AUDIENCE, "sub": "x", "exp": time.time() + 60})
    mac = hmac.new(public, f"{head}.{body}".encode(), hashlib.sha256).digest()
    text = f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    with pytest.raises(UnauthorizedError, match="HS256"):
        verify(text)


def test_only_public_signing_keys_are_used() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    odd = ec.generate_private_key(ec.SECP256K1())
    unusable: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        jwk(RSA_KEY, "encryption", use="enc"),
        jwk(RSA_KEY, "encrypts", key_ops=["encrypt"]),
        jwk(RSA_KEY, "shared", alg="HS256"),
        jwk(RSA_KEY, "listed", alg=["RS256"]),
        jwk(small, "small"),
        jwk(odd, "odd"),
        {"kty": "RSA", "kid": "half", "n": "AQAB"},
        {"kty": "RSA", "kid": "numbers", "n": 1, "e": 2},
        {"kty": "EC", "crv": ["P-256"], "kid": "list"},
        *(None, [], "x", 7),
    ]
    assert [key.kid for key in published(*unusable, jwk(RSA_KEY, "good"))] == ["good"]
    with pytest.raises(ValueError, match="none of its"):
        published(*unusable)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"\xff"])
def test_what_holds_no_keys_says_so(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it |^none "):
        jwks.parse(data)


def test_a_declared_algorithm_is_the_only_one() -> None:
    keys = published(jwk(RSA_KEY, "one", alg="RS256"))
    assert verify(token(URL), keys) is not None
    with pytest.raises(UnauthorizedError):
        verify(token(URL, algorithm="PS256"), keys)


@pytest.mark.parametrize(
    ("claims", "grants"),
    [
        ({"scope": "openid fieldpost.infer"}, {"infer": None}),
        ({"scp": "fieldpost.infer fieldpost.admin"}, {"infer": None, "admin": None}),
        ({"scp": ["fieldpost.metrics"]}, {"metrics": None}),
        ({"roles": ["fieldpost.admin", 7]}, {"admin": None}),
        ({"permissions": ["fieldpost.infer"]}, {"infer": None}),
        ({"scope": "fieldpost.infer:a fieldpost.infer:b"}, {"infer": frozenset({"a", "b"})}),
        ({"scope": "fieldpost.infer:a fieldpost.infer"}, {"infer": None}),
        ({"scope": "fieldpost.infer fieldpost.infer:a"}, {"infer": None}),
        ({"scope": "infer admin fieldpost.all fieldpost.inferx"}, {}),
        ({"scope": 7, "scp": None}, {}),
        ({}, {}),
    ],
)
def test_scopes_and_roles_become_grants(claims: dict[str, Any], grants: dict[str, Any]) -> None:
    assert oidc.grants(claims) == grants


def test_a_principal_is_named_for_people() -> None:
    claims = {"sub": "1234", "exp": 100, "preferred_username": "ada"}
    found = oidc.principal(claims)
    assert (found.id, found.name) == ("oidc:1234", "ada")
    assert found.expires == 130
    assert oidc.principal({"sub": "1234", "exp": 10**400}).name == "1234"


def test_keys_are_found_by_the_issuers_configuration() -> None:
    with Issuer() as issuer:
        assert len(jwks.parse(signing_keys(issuer.url, ""))) == 1
        assert len(jwks.parse(signing_keys(issuer.url, f"{issuer.url}/elsewhere"))) == 1
        assert issuer.requests == ["/.well-known/openid-configuration", "/keys", "/elsewhere"]


def test_a_failure_that_passes_is_tried_again() -> None:
    with Issuer() as issuer:
        issuer.failures = 2
        assert signing_keys(issuer.url, f"{issuer.url}/keys")
        assert len(issuer.requests) == 3


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ({"issuer": "https://other.test"}, "not 'http://127"),
        ({"jwks_uri": None}, "does not say"),
    ],
)
def test_a_wrong_configuration_is_refused(configuration: dict[str, Any], said: str) -> None:
    with Issuer() as issuer:
        issuer.configuration = configuration
        with pytest.raises(FetchError, match=said):
            signing_keys(issuer.url, "")


def test_keys_are_not_fetched_without_tls() -> None:
    with Issuer() as issuer:
        issuer.configuration = {"jwks_uri": "http://issuer.test/keys"}
        with pytest.raises(UsageError, match="https"):
            signing_keys(issuer.url, "")


def test_an_endless_answer_is_cut_off() -> None:
    with Issuer() as issuer:
        issuer.body = b"x" * ((1 << 20) + 1)
        with pytest.raises(FetchError, match="more than"):
            signing_keys(issuer.url, f"{issuer.url}/keys")


def test_an_answer_that_only_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part comes in time; who waits for the keys cannot wait for all of them."""
    monkeypatch.setattr(fetching, "_WHOLE_S", 0.05)
    with Issuer() as issuer:
        issuer.body, issuer.pause_s = b"x" * 1000, 0.01
        with pytest.raises(FetchError, match="takes more than"):
            signing_keys(issuer.url, f"{issuer.url}/keys")


@pytest.mark.parametrize(
    "url", ["", "issuer.test", "http://issuer.test", "ftp://issuer.test", "https://", "http://[::1"]
)
def test_an_issuer_is_an_https_url(url: str) -> None:
    with pytest.raises(UsageError, match="https URL"):
        issuers.source(url, "")


def test_keys_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(RSA_KEY, "one")]}))
    fetch, file = issuers.source(URL, str(path))
    assert file == path
    loop = Loop()
    changes: list[int] = []
    keys = Keys(fetch, loop.post, lambda: changes.append(1), file)
    keys.tick()
    loop.run()
    assert keys.keys is not None
    assert [key.kid for key in keys.keys] == ["one"]
    path.write_text("broken")
    keys.tick()
    loop.run()
    assert [key.kid for key in keys.keys] == ["one"]
    path.write_text(json.dumps({"keys": [jwk(EC_KEY, "two"), jwk(RSA_KEY, "three")]}))
    keys.tick()
    loop.run()
    assert [key.kid for key in keys.keys] == ["two", "three"]
    assert len(changes) == 2


def test_those_who_wait_are_told_when_keys_cannot_be_had() -> None:
    loop = Loop()

    def fetch() -> bytes:
        raise OSError("no route")

    keys = Keys(fetch, loop.post)
    told: list[FieldpostError | None] = []
    keys.refresh(told.append)
    keys.refresh(told.append)
    loop.run()
    assert [type(error) for error in told] == [UnreachableError, UnreachableError]
    keys.refresh(told.append)  # too soon for another try: told at once
    assert len(told) == 3


def test_unknown_names_of_keys_do_not_make_us_ask_again_and_again() -> None:
    loop = Loop()
    fetched: list[int] = []

    def fetch() -> bytes:
        fetched.append(1)
        return json.dumps({"keys": [jwk(RSA_KEY, "one")]}).encode()

    keys = Keys(fetch, loop.post)
    keys.tick()
    loop.run()
    told: list[FieldpostError | None] = []
    for _ in range(100):
        keys.refresh(told.append)
    assert told == [None] * 100
    assert len(fetched) == 1


def test_too_many_cannot_wait() -> None:
    loop = Loop()
    keys = Keys(lambda: b"", loop.post)
    told: list[FieldpostError | None] = []
    for _ in range(1025):
        keys.refresh(told.append)
    assert len(told) == 1
    loop.run()
    assert len(told) == 1025


def test_pyjwt_itself_takes_what_we_make() -> None:
    text = token(URL)
    assert jwt.decode(text, RSA_KEY.public_key(), ["RS256"], audience=AUDIENCE, issuer=URL)
