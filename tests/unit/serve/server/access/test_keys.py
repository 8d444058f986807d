"""API keys: made, hashed, verified, kept in a file."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from scoring.errors import UnauthorizedError, UsageError, WorkspaceError
from serve.server.access import keyfile, keys
from serve.server.access.credentials import Credential, parse

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def by_id(*made: keys.Key) -> dict[str, keys.Key]:
    return {key.id: key for key in made}


def test_a_key_is_known_by_its_secret_alone() -> None:
    key, text = keys.make("ci")
    other, _ = keys.make("ci")
    assert text.startswith(f"fp_{key.id}_")
    assert keys.verify(text, by_id(key, other), NOW) is key
    secret = text.rsplit("_", 1)[-1]
    assert secret not in repr(key)
    assert secret not in json.dumps([key.salt, key.hash])


def test_every_wrong_key_is_refused_alike() -> None:
    key, text = keys.make("ci")
    other, theirs = keys.make("ci")
    swapped = f"fp_{other.id}_{text.split('_', 2)[2]}"
    wrong = [
        *("", "fp_", "fp_x_y", text[:-1], text + "a", text.upper(), text + "\n", "\u0661" * 60),
        *(swapped, theirs, f" {text}", text.replace("fp_", "fq_")),
    ]
    messages = set()
    for shown in wrong:
        with pytest.raises(UnauthorizedError) as refused:
            keys.verify(shown, by_id(key), NOW)
        messages.add(refused.value.message)
    assert len(messages) == 1


def test_a_key_that_is_over_says_so() -> None:
    key, text = keys.make("ci", expires=NOW + timedelta(days=1))
    assert keys.verify(text, by_id(key), NOW) is key
    with pytest.raises(UnauthorizedError, match="expired"):
        keys.verify(text, by_id(key), NOW + timedelta(days=1))
    with pytest.raises(UnauthorizedError, match="not one of"):
        keys.verify(text[:-3] + "aaa", by_id(key), NOW + timedelta(days=1))


def test_scopes_are_for_all_models_or_some() -> None:
    every, _ = keys.make("a", scopes=["admin", "infer"])
    some, _ = keys.make("b", models=["iris"])
    assert every.grants == {"infer": None, "admin": None}
    assert some.grants == {"infer": frozenset({"iris"})}


def test_a_key_needs_a_name_and_a_scope() -> None:
    for name in ("", " ", "a\nb"):
        with pytest.raises(UsageError, match="name"):
            keys.make(name)
    with pytest.raises(UsageError, match="scope"):
        keys.make("ci", scopes=[])


def test_the_file_is_its_owners_and_reads_as_written(tmp_path: Path) -> None:
    key, text = keys.make("ci", models=["iris"], expires=NOW, rate=2.5, burst=3)
    path = tmp_path / "keys.json"
    keyfile.write(path, keys.KeyFile((key,)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keyfile.read(path).keys == (key,)
    assert text.split("_", 2)[2] not in path.read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not a file"),
        ("[]", "is not a file"),
        ('{"keys": [], "version": 2}', "is not a file"),
        ('{"keys": [], "more": 1}', "more"),
        ('{"keys": [{"id": "x"}]}', "is not a file"),
        ("\udcff", "is not a file"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=said):
        keyfile.read(path)


@pytest.mark.parametrize("field", ["salt", "hash", "id", "created", "expires", "scopes", "rate"])
def test_a_key_with_a_wrong_field_is_no_key(tmp_path: Path, field: str) -> None:
    path = tmp_path / "keys.json"
    key, _ = keys.make("ci")
    keyfile.write(path, keys.KeyFile((key,)))
    document = json.loads(path.read_text())
    document["keys"][0][field] = "wrong"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=field):
        keyfile.read(path)


def test_two_keys_of_one_id_are_a_fault(tmp_path: Path) -> None:
    key, _ = keys.make("ci")
    path = tmp_path / "keys.json"
    keyfile.write(path, keys.KeyFile((key, key)))
    with pytest.raises(UsageError, match="two keys"):
        keyfile.read(path)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        keyfile.read(tmp_path / "keys.json")
    assert "fieldpost key create" in refused.value.hint
    with pytest.raises(WorkspaceError), keyfile.locked(tmp_path / "none" / "keys.json"):
        pass


@pytest.mark.parametrize(
    ("raw", "credential"),
    [
        (b"Bearer fp_a_b", Credential("key", "fp_a_b")),
        (b"bearer   eyJh.b.c", Credential("token", "eyJh.b.c")),
        (b"ApiKey fp_a_b", Credential("key", "fp_a_b")),
        (b"key fp_a_b", Credential("key", "fp_a_b")),
        (b"Basic dXNlcjpmcF9hX2I=", Credential("key", "fp_a_b")),
        (b"Basic OmZwX2FfYg==", Credential("key", "fp_a_b")),
        *((raw, None) for raw in (b"", b"Bearer", b"Bearer ", b"Digest a", b"fp_a_b", b"\xff a")),
        *((raw, None) for raw in (b"Basic ?", b"Basic /w==", b"Basic dXNlcg==", b"Basic dXNlcjo=")),
        (b"Bearer " + b"a" * 20_000, None),
    ],
)
def test_credentials_are_read_from_what_clients_send(
    raw: bytes, credential: Credential | None
) -> None:
    assert parse(raw) == credential
    assert "fp_a_b" not in repr(parse(raw))
