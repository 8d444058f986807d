from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scoring.errors import AlreadyExistsError, SigningKeyError
from serve.provenance.keyfiles import (
    encrypted_pem,
    load_private,
    load_public,
    parse_public,
    write_pair,
)
from serve.provenance.keys import PrivateKey


def never() -> str:
    raise AssertionError("the password was asked for")


@pytest.fixture
def pair(tmp_path: Path, key: PrivateKey) -> tuple[Path, Path]:
    return write_pair(key, "secret ü", tmp_path / "cosign")


def test_a_pair_is_read_as_it_was_written(pair: tuple[Path, Path], key: PrivateKey) -> None:
    private, public = pair
    assert (private.name, public.name) == ("cosign.key", "cosign.pub")
    assert load_private(private, lambda: "secret ü").public == key.public
    assert load_public(public) == (key.public,)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_an_older_key_is_never_overwritten(pair: tuple[Path, Path], key: PrivateKey) -> None:
    before = pair[0].read_bytes()
    pair[1].unlink()
    with pytest.raises(AlreadyExistsError, match=r"cosign\.key"):
        write_pair(key, "", pair[0].with_suffix(""))
    assert pair[0].read_bytes() == before
    assert not pair[1].exists()


def test_the_file_has_the_form_of_cosigns(pair: tuple[Path, Path]) -> None:
    lines = pair[0].read_text().splitlines()
    assert lines[0] == "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----"
    document = json.loads(base64.b64decode("".join(lines[1:-1])))
    assert document["kdf"]["name"] == "scrypt"
    assert document["kdf"]["params"] == {"N": 32768, "r": 8, "p": 1}
    assert document["cipher"]["name"] == "nacl/secretbox"
    sizes = [document["kdf"]["salt"], document["cipher"]["nonce"]]
    assert [len(base64.b64decode(text)) for text in sizes] == [32, 24]


def test_the_newer_label_and_an_empty_password_are_read(tmp_path: Path, key: PrivateKey) -> None:
    path = tmp_path / "new.key"
    path.write_bytes(encrypted_pem(key, "").replace(b" COSIGN ", b" SIGSTORE "))
    assert load_private(path, lambda: "").public == key.public


def test_another_password_is_told(pair: tuple[Path, Path]) -> None:
    with pytest.raises(SigningKeyError, match="password does not open") as caught:
        load_private(pair[0], lambda: "secret u")
    assert "COSIGN_PASSWORD" in caught.value.hint
    assert caught.value.__cause__ is None


def test_a_key_is_in_no_text(key: PrivateKey) -> None:
    shown = repr(key) + str(vars(key).keys())
    assert key.pkcs8().hex() not in shown
    assert key.public.fingerprint in repr(key)


def rewritten(content: bytes, path: list[str], value: Any) -> bytes:
    head, *body, tail = content.decode().splitlines()
    document = json.loads(base64.b64decode("".join(body)))
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return f"{head}\n{base64.b64encode(json.dumps(document).encode()).decode()}\n{tail}\n".encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["kdf", "params", "N"], 1 << 30, "does not use"),
        (["kdf", "params", "r"], 1 << 20, "does not use"),
        (["kdf", "name"], "pbkdf2", "does not use"),
        (["cipher", "name"], "rot13", "does not use"),
        (["cipher", "nonce"], "AAAA", "does not use"),
        (["ciphertext"], "", "password"),
        (["ciphertext"], 7, "damaged"),
        (["kdf"], None, "damaged"),
    ],
)
def test_files_that_cosign_would_not_write_are_refused(
    pair: tuple[Path, Path], path: list[str], value: Any, message: str
) -> None:
    pair[0].write_bytes(rewritten(pair[0].read_bytes(), path, value))
    with pytest.raises(SigningKeyError, match=message):
        load_private(pair[0], lambda: "secret ü")


def test_public_and_private_halves_are_told_apart(pair: tuple[Path, Path]) -> None:
    with pytest.raises(SigningKeyError, match="public half"):
        load_private(pair[1], never)
    with pytest.raises(SigningKeyError, match="is a private key"):
        load_public(pair[0])


def test_several_public_keys_may_follow_one_another(key: PrivateKey, other_key: PrivateKey) -> None:
    found = parse_public(key.public.pem + b"# the new one\n" + other_key.public.pem, "keys")
    assert found == (key.public, other_key.public)


@pytest.mark.parametrize("content", [b"", b"no key", b"\0" * 70_000])
def test_what_is_no_key_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    for load in (lambda: load_private(path, never), lambda: load_public(path)):
        with pytest.raises(SigningKeyError, match="holds no key"):
            load()


def test_a_damaged_public_key_is_told() -> None:
    for body in (b"AAAA", b"!", b"A" * 64):
        with pytest.raises(SigningKeyError, match="holds no key"):
            parse_public(
                b"-----BEGIN PUBLIC KEY-----\n" + body + b"\n-----END PUBLIC KEY-----\n", "k"
            )


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match="cannot be read") as caught:
        load_private(tmp_path / "none.key", never)
    assert "signing-key create" in caught.value.hint


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing")


def openssl(*arguments: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)


@needs_openssl
@pytest.mark.parametrize(
    "options",
    [
        ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
        ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
        ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
        ("-algorithm", "ED25519"),
    ],
)
def test_keys_of_openssl_sign_what_openssl_takes(tmp_path: Path, options: tuple[str, ...]) -> None:
    private, public = tmp_path / "k.pem", tmp_path / "k.pub"
    assert openssl("genpkey", *options, "-out", private).returncode == 0
    assert openssl("pkey", "-in", private, "-pubout", "-out", public).returncode == 0
    key = load_private(private, never)
    assert load_public(public) == (key.public,)
    data, signature = tmp_path / "data", tmp_path / "signature"
    data.write_bytes(b"payload")
    signature.write_bytes(key.sign(b"payload"))
    raw = ("-rawin",) if options[1] == "ED25519" else ("-rawin", "-digest", "sha256")
    checked = openssl(
        "pkeyutl", "-verify", "-pubin", "-inkey", public, *raw, "-in", data, "-sigfile", signature
    )
    assert b"Success" in checked.stdout, checked.stderr
    assert key.public.accepts(signature.read_bytes(), b"payload")
    assert not key.public.accepts(signature.read_bytes(), b"payloaD")


@needs_openssl
def test_an_encrypted_key_of_openssl_is_read(tmp_path: Path) -> None:
    private = tmp_path / "k.pem"
    openssl("genpkey", "-algorithm", "ED25519", "-aes256", "-pass", "pass:pw", "-out", private)
    assert load_private(private, lambda: "pw").sign(b"x")
    with pytest.raises(SigningKeyError, match="password"):
        load_private(private, lambda: "pW")


@needs_openssl
def test_keys_that_are_too_weak_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    private = tmp_path / "k.pem"
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", private)
    with pytest.raises(SigningKeyError, match="1024 bits"):
        load_private(private, never)
    openssl("genpkey", "-algorithm", "X25519", "-out", private)
    with pytest.raises(SigningKeyError, match="does not sign"):
        load_private(private, never)
