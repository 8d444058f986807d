"""Credentials and paths of no meaning: nobody gets in, and no key reaches another's model."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.errors import UnauthorizedError
from serve.server.access import jwks, oidc
from serve.server.access.guard import Guard
from serve.server.access.keychain import Keychain
from serve.server.access.needs import need_of
from serve.server.settings import ServerSettings
from serve.server.wire import split_target
from tests.support.issuer import AUDIENCE, RSA_KEY, Loop, jwk, token
from tests.support.server import Client, LiveServer, Sums, post, serve_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUNDS = 1500
ISSUER = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def secret(folder: Path) -> str:
    return Keychain(folder / "keys.json").create("ci", models=["one"])[1]


@pytest.fixture(scope="module")
def guard(folder: Path, secret: str) -> Guard:
    settings = ServerSettings(
        api_keys=str(folder / "keys.json"), oidc_issuer=ISSUER, oidc_audience=AUDIENCE
    )
    made = Guard.from_settings(settings, Loop().post)
    assert isinstance(made, Guard)
    return made


pieces = st.sampled_from(
    [
        *("Bearer ", "Basic ", "ApiKey ", "key ", "fp_", "_", ".", "..", "=", " ", "\t", ",", "é"),
        *("0" * 12, "a" * 43, "eyJhbGciOiJub25lIn0", "eyJhbGciOiJSUzI1NiJ9", "e30", "\0", "\ud800"),
    ]
)


@given(st.lists(pieces | st.text(max_size=5), max_size=8).map("".join) | st.binary(max_size=60))
@settings(max_examples=600, deadline=None)
def test_no_made_up_credential_is_taken(guard: Guard, credential: str | bytes) -> None:
    raw = credential if isinstance(credential, bytes) else credential.encode("utf-8", "replace")
    with contextlib.suppress(UnauthorizedError):
        assert guard.admit(raw, b"/score") is None  # a token whose key is not there yet


def test_no_part_of_a_key_that_was_changed_is_taken(guard: Guard, secret: str) -> None:
    for number, character in enumerate(secret):
        wrong = secret[:number] + ("a" if character != "a" else "b") + secret[number + 1 :]
        for text in (wrong, secret[:number], secret[:number] + secret[number + 1 :]):
            with pytest.raises(UnauthorizedError):
                guard.admit(b"ApiKey " + text.encode(), b"/score")
    assert guard.admit(b"ApiKey " + secret.encode(), b"/v1/models/one:predict") is not None


def test_no_part_of_a_token_that_was_changed_is_taken() -> None:
    text = token(ISSUER)
    keys = jwks.parse(json.dumps({"keys": [jwk(RSA_KEY, "one")]}).encode())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for number in range(0, len(text) - 1, 3):
        if text[number] == ".":
            continue
        other = alphabet[(alphabet.index(text[number]) + 1) % 64]
        changed = text[:number] + other + text[number + 1 :]
        try:
            claims = oidc.verify(changed, keys, issuer=ISSUER, audience=AUDIENCE)
        except UnauthorizedError:
            continue
        assert claims is None, number  # the name of the key was changed


@given(st.binary(max_size=60))
def test_every_target_asks_for_something(target: bytes) -> None:
    if not need_of(target).scope:
        assert split_target(target)[0] in {"/", "/ping", "/health"}


class Other(Sums):
    """A model whose answers are not those of the first."""

    def predict(self, inputs: Any) -> dict[str, Any]:
        answer = super().predict(inputs)
        return {name: value + 1000 for name, value in answer.items()}


@pytest.fixture(scope="module")
def server(folder: Path, secret: str) -> Iterator[LiveServer]:
    keys = str(folder / "keys.json")
    with serve_models({"one": Sums(), "two": Other()}, api_keys=keys) as running:
        yield running


SEEDS = ["/v1/models/two:predict", "/v2/models/two/infer", "/v1/models/one:predict",
         "/v2/models/two/versions/1/infer", "/score", "/v2//models/two/infer",
         "http://host/v1/models/two:predict"]  # fmt: skip
PARTS = ["/", "//", "..", ".", "%2e", "%2E%2e", "%2f", "%5c", "%00", "?", "#", ":", "%3a", "%3A",
         "one", "two", "%74wo", "two/", "/one/../two", ";", "&", "v1", "v2", ":predict", "/infer",
         "%", "%zz", "http://a", "@", "models", " ", "%20", "\u00ad"]  # fmt: skip
OPERATIONS = ["/v2/repository/models/one/unload", "/v2//repository/models/one/load/"]
BODY = b'{"instances":[[1,2,3]]}'
V2_BODY = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'


def _mutated(random_: random.Random) -> str:
    path = random_.choice(SEEDS)
    for _ in range(random_.randint(0, 3)):
        at = random_.randint(0, len(path))
        until = at + random_.choice([0, 0, 1, 3])
        path = path[:at] + random_.choice(PARTS) + path[until:]
    return path.replace(" ", "")


def test_no_path_leads_a_key_to_another_model(server: LiveServer, secret: str) -> None:
    random_ = random.Random(5)
    header = f"Authorization: Bearer {secret}"
    reached = 0
    for _ in range(ROUNDS):
        path = _mutated(random_)
        body = V2_BODY if "v2" in path else BODY
        with Client(server.port) as client:
            lines = post(body, path, header, "Connection: close")
            client.send(lines)
            answer = client.read()
        assert b"1006" not in answer.body, path
        assert answer.status < 500, path
        reached += answer.status == 200
    assert reached > 10


def test_no_path_leads_a_key_to_what_an_operator_may(server: LiveServer, secret: str) -> None:
    random_ = random.Random(6)
    for _ in range(ROUNDS // 3):
        path = random_.choice(
            ["/v2/repository/models/one/unload", "/v2//repository/models/one/load"]
        )
        at = random_.randint(0, len(path))
        path = path[:at] + random_.choice(PARTS).strip() + path[at:]
        with Client(server.port) as client:
            client.send(post(b"{}", path, f"Authorization: Bearer {secret}", "Connection: close"))
            assert client.read().status >= 400, path


def test_basic_credentials_hide_nothing(guard: Guard, secret: str) -> None:
    for text in (f":{secret}", f"user:{secret}", f"{secret}:", secret, f"a:b:{secret}"):
        raw = b"Basic " + base64.b64encode(text.encode())
        if text.split(":", 1)[-1] == secret and ":" in text:
            assert guard.admit(raw, b"/v1/models/one:predict") is not None
        else:
            with pytest.raises(UnauthorizedError):
                guard.admit(raw, b"/v1/models/one:predict")
