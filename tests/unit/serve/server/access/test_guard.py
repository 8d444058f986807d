"""The guard: one answer for every request, from keys, tokens and rates, as they change."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import (
    FieldpostError,
    ForbiddenError,
    RateLimitedError,
    UnauthorizedError,
    UnreachableError,
    UsageError,
)
from serve.server.access import keyfile, keys
from serve.server.access.guard import AddressGuard, Guard
from serve.server.settings import ServerSettings
from tests.support.issuer import AUDIENCE, EC_KEY, RSA_KEY, Issuer, Loop, jwk, token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serve.server.access.principal import Principal

SCORE = b"/score"


class KeyStore:
    """A file of keys that the test changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[keys.Key] = []
        self.write()

    def add(self, name: str = "ci", **given: Any) -> bytes:
        key, text = keys.make(name, **given)
        self.keys.append(key)
        self.write()
        return b"Bearer " + text.encode()

    def write(self) -> None:
        keyfile.write(self.path, keys.KeyFile(tuple(self.keys)))


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.json")


def guarded(store: KeyStore, **given: Any) -> Guard:
    settings = ServerSettings(api_keys=str(store.path), **given)
    guard = Guard.from_settings(settings, Loop().post)
    assert isinstance(guard, Guard)
    return guard


def admit(guard: Guard, credential: bytes, target: bytes = SCORE) -> Principal:
    principal = guard.admit(credential, target)
    assert principal is not None
    return principal


def ask_for_ever(guard: Guard, ask: Callable[[], object]) -> None:
    """Asks until it is refused, for at most ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        guard.tick()
        ask()


def test_without_settings_there_is_no_guard() -> None:
    assert Guard.from_settings(ServerSettings(), Loop().post) is None


def test_a_key_is_one_principal_however_it_is_sent(store: KeyStore) -> None:
    bearer = store.add()
    text = bearer.removeprefix(b"Bearer ")
    guard = guarded(store)
    ways = [bearer, b"key " + text, b"ApiKey " + text, b"Basic " + b64encode(b"x:" + text)]
    found = {admit(guard, way) for way in ways} | {admit(guard, bearer)}
    assert {principal.id for principal in found} == {f"key:{store.keys[0].id}"}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("credential", "challenge"),
    [
        (b"", 'Bearer realm="fieldpost"$'),
        (b"Bearer fp_" + b"0" * 12 + b"_" + b"a" * 43, "invalid_token"),
        (b"Bearer a.b.c", "invalid_token"),
        (b"Digest x", "invalid_token"),
        (b"\xff\xfe", "invalid_token"),
    ],
)
def test_who_is_not_known_is_told_how_to_ask(
    store: KeyStore, credential: bytes, challenge: str
) -> None:
    guard = guarded(store)
    with pytest.raises(UnauthorizedError) as refused:
        guard.admit(credential, SCORE)
    assert re.search(challenge, refused.value.challenges[0])
    assert refused.value.challenges[1].startswith("ApiKey")


def test_probes_pass_whatever_is_sent(store: KeyStore) -> None:
    guard = guarded(store)
    for credential in (b"", b"Bearer wrong", store.add()):
        for target in (b"/health/ready", b"/", b"/ping", b"/v2/health/live"):
            assert guard.admit(credential, target) is not None


def test_scopes_and_models_are_held_at_each_target(store: KeyStore) -> None:
    credential = store.add(models=["iris"])
    guard = guarded(store)
    for _ in range(2):
        admit(guard, credential, b"/v2/models/iris/infer")
        with pytest.raises(ForbiddenError, match="digits"):
            guard.admit(credential, b"/v2/models/digits/infer")
        with pytest.raises(ForbiddenError, match="admin"):
            guard.admit(credential, b"/v2/repository/models/iris/load")


def test_the_default_model_is_what_score_asks(store: KeyStore) -> None:
    credential = store.add(models=["iris"])
    guard = guarded(store)
    with pytest.raises(ForbiddenError):
        guard.admit(credential, SCORE)
    guard.default_model = "iris"
    admit(guard, credential)
    guard.default_model = "digits"
    with pytest.raises(ForbiddenError, match="digits"):
        guard.admit(credential, SCORE)


def test_a_revoked_key_is_out_at_the_next_tick(store: KeyStore) -> None:
    first, second = store.add(), store.add()
    guard = guarded(store)
    admit(guard, first)
    store.keys[0] = _changed(store.keys[0], revoked=datetime.now(UTC))
    store.write()
    guard.tick()
    with pytest.raises(UnauthorizedError, match="revoked"):
        guard.admit(first, SCORE)
    admit(guard, second)


def _changed(key: keys.Key, **fields: Any) -> keys.Key:
    import msgspec

    return msgspec.structs.replace(key, **fields)


def test_a_key_that_expires_is_out_though_it_was_known(store: KeyStore) -> None:
    credential = store.add(expires=datetime.now(UTC) + timedelta(milliseconds=200))
    guard = guarded(store)
    admit(guard, credential)
    with pytest.raises(UnauthorizedError, match="expired"):
        ask_for_ever(guard, lambda: guard.admit(credential, SCORE))


def test_new_keys_are_taken_without_a_restart(store: KeyStore) -> None:
    guard = guarded(store)
    credential = store.add()
    with pytest.raises(UnauthorizedError):
        guard.admit(credential, SCORE)
    guard.tick()
    admit(guard, credential)


@pytest.mark.parametrize("fault", ["broken", "gone"])
def test_a_broken_file_leaves_the_keys_as_they_were(
    store: KeyStore, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    credential = store.add()
    guard = guarded(store)
    good = store.path.read_bytes()
    if fault == "broken":
        store.path.write_bytes(good[:-20])
    else:
        store.path.unlink()
    guard.tick()
    guard.tick()
    admit(guard, credential)
    assert len([r for r in caplog.records if "stay as they were" in r.message]) == 1
    store.path.write_bytes(good)
    guard.tick()
    admit(guard, credential)


def test_a_swapped_link_is_a_new_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = KeyStore(tmp_path / "one" / "keys"), KeyStore(tmp_path / "two" / "keys")
    old, new = first.add(), second.add()
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "keys").symlink_to("data/keys")
    first.path = tmp_path / "keys"
    guard = guarded(first)
    admit(guard, old)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "data")
    guard.tick()
    admit(guard, new)
    with pytest.raises(UnauthorizedError):
        guard.admit(old, SCORE)


def test_a_missing_file_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Guard.from_settings(ServerSettings(api_keys=str(tmp_path / "none")), Loop().post)


def test_each_key_has_its_rate_in_all_its_forms(store: KeyStore) -> None:
    limited, free, usual = store.add(rate=0.001, burst=2), store.add(rate=0), store.add()
    guard = guarded(store, rate_limit=0.001, rate_burst=3)
    admit(guard, limited)
    admit(guard, b"key " + limited.removeprefix(b"Bearer "))
    with pytest.raises(RateLimitedError) as refused:
        guard.admit(limited, SCORE)
    assert refused.value.retry_after_s in {999, 1000}
    for _ in range(50):
        admit(guard, free)
    for _ in range(3):
        admit(guard, usual)
    with pytest.raises(RateLimitedError):
        guard.admit(usual, SCORE)
    guard.admit(b"", b"/health/ready")


def test_a_new_file_does_not_fill_a_bucket(store: KeyStore) -> None:
    credential = store.add(rate=0.001, burst=1)
    guard = guarded(store)
    admit(guard, credential)
    store.add()
    guard.tick()
    with pytest.raises(RateLimitedError):
        guard.admit(credential, SCORE)


def test_what_is_remembered_is_bounded(store: KeyStore) -> None:
    text = store.add().removeprefix(b"Bearer ")
    guard = guarded(store)
    for number in range(5000):
        admit(guard, b"Basic " + b64encode(b"%d:%b" % (number, text)))
    assert len(guard._known) <= 4096


def test_addresses_are_limited_where_nobody_has_a_key() -> None:
    guard = Guard.from_settings(ServerSettings(rate_limit=0.001, rate_burst=2), Loop().post)
    assert isinstance(guard, AddressGuard)
    for _ in range(2):
        guard.admit(b"", SCORE, "10.0.0.1")
    with pytest.raises(RateLimitedError):
        guard.admit(b"Bearer whatever", SCORE, "10.0.0.1")
    guard.admit(b"", SCORE, "10.0.0.2")
    for _ in range(10):
        guard.admit(b"", b"/health/ready", "10.0.0.1")
    told: list[FieldpostError | None] = []
    guard.decide(b"", SCORE, lambda _principal, error: told.append(error))
    assert told == [None]
    for number in range(5000):
        guard.admit(b"", SCORE, f"10.1.{number // 250}.{number % 250}")
    assert len(guard._known) <= 4096


class Tokens:
    """A guard of an issuer's tokens, and the loop that it posts to."""

    def __init__(self, issuer: Issuer, **given: Any) -> None:
        self.loop = Loop()
        settings = ServerSettings(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, **given)
        guard = Guard.from_settings(settings, self.loop.post)
        assert isinstance(guard, Guard)
        self.guard = guard

    def ask(self, text: str, target: bytes = SCORE) -> Principal:
        """Admits at once, or when the keys have come."""
        credential = b"Bearer " + text.encode()
        found = self.guard.admit(credential, target)
        if found is not None:
            return found
        told: list[tuple[Principal | None, FieldpostError | None]] = []
        self.guard.decide(credential, target, lambda *outcome: told.append(outcome))
        if not told:
            self.loop.run()
        ((principal, error),) = told
        if error is not None:
            raise error
        assert principal is not None
        return principal


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


def test_a_token_is_known_once_the_keys_are_there(issuer: Issuer) -> None:
    tokens = Tokens(issuer)
    text = token(issuer.url)
    credential = b"Bearer " + text.encode()
    assert tokens.guard.admit(credential, SCORE) is None
    assert tokens.ask(text).id == "oidc:someone"
    assert tokens.guard.admit(credential, SCORE) is not None
    with pytest.raises(ForbiddenError):
        tokens.ask(text, b"/metrics")


def test_the_first_tick_fetches_the_keys(issuer: Issuer) -> None:
    tokens = Tokens(issuer)
    tokens.guard.tick()
    tokens.loop.run()
    assert tokens.guard.admit(b"Bearer " + token(issuer.url).encode(), SCORE) is not None


def test_new_keys_of_the_issuer_are_fetched_for_a_new_name(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.server.access.issuer._UNKNOWN_KEY_S", 0.0)
    tokens = Tokens(issuer)
    old = token(issuer.url)
    tokens.ask(old)
    issuer.keys = [jwk(EC_KEY, "two")]
    new = token(issuer.url, EC_KEY, "two", "ES256")
    assert tokens.ask(new).id == "oidc:someone"
    with pytest.raises(UnauthorizedError, match="not known"):
        tokens.ask(old)  # what the old key signed is out, though it was known


def test_an_unknown_key_is_told_without_asking_again(issuer: Issuer) -> None:
    tokens = Tokens(issuer)
    tokens.ask(token(issuer.url))
    asked = len(issuer.requests)
    with pytest.raises(UnauthorizedError, match="not known"):
        tokens.ask(token(issuer.url, kid="made-up"))
    assert len(issuer.requests) == asked


def test_an_issuer_that_is_away_is_no_fault_of_the_sender(issuer: Issuer) -> None:
    tokens = Tokens(issuer)
    issuer.failures = 100
    with pytest.raises(UnreachableError):
        tokens.ask(token(issuer.url))
    tokens.guard.admit(b"", b"/health/ready")


def test_new_tokens_of_one_subject_share_a_bucket(issuer: Issuer) -> None:
    tokens = Tokens(issuer, rate_limit=0.001, rate_burst=2)
    for jti in ("a", "b"):
        tokens.ask(token(issuer.url, jti=jti))
    with pytest.raises(RateLimitedError):
        tokens.ask(token(issuer.url, jti="c"))
    tokens.ask(token(issuer.url, sub="another"))


def test_keys_and_tokens_may_be_taken_by_one_server(issuer: Issuer, store: KeyStore) -> None:
    credential = store.add()
    tokens = Tokens(issuer, api_keys=str(store.path))
    assert admit(tokens.guard, credential).id.startswith("key:")
    assert tokens.ask(token(issuer.url)).id == "oidc:someone"


def test_an_expired_token_is_out_though_it_was_known(issuer: Issuer) -> None:
    tokens = Tokens(issuer)
    text = token(issuer.url, RSA_KEY, exp=int(time.time()) - 28)
    tokens.ask(text)
    with pytest.raises(UnauthorizedError, match="expired"):
        ask_for_ever(tokens.guard, lambda: tokens.ask(text))


def test_an_issuer_needs_an_audience(issuer: Issuer) -> None:
    with pytest.raises(UsageError, match="oidc_audience"):
        Guard.from_settings(ServerSettings(oidc_issuer=issuer.url), Loop().post)
