from __future__ import annotations

import hashlib
import io

import pytest

from scoring import digest as digests
from scoring.errors import InvalidNameError

HELLO = "sha256:" + hashlib.sha256(b"hello").hexdigest()


def test_bytes_chunks_and_streams_agree() -> None:
    assert digests.of_bytes(b"hello") == HELLO
    assert digests.of_chunks([b"he", b"", b"llo"]) == HELLO
    assert digests.of_stream(io.BytesIO(b"hello")) == HELLO


def test_a_digest_is_taken_apart_and_put_together() -> None:
    assert digests.from_hex(digests.parse(HELLO)) == HELLO


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        HELLO[:-1],
        HELLO + "0",
        HELLO + "\n",
        HELLO.upper(),
        HELLO.replace("sha256", "sha512"),
        "sha256:" + "../" * 21 + "a",
        "sha256:" + "٣" * 64,
        HELLO.removeprefix("sha256:"),
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    assert not digests.is_digest(text)
    with pytest.raises(InvalidNameError, match="is not a digest") as caught:
        digests.parse(text)
    assert "64 hexadecimal" in caught.value.hint
