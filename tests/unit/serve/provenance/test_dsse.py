from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from scoring.errors import VerificationError
from serve.provenance.dsse import STATEMENT_TYPE, authenticated, open_envelope, seal

if TYPE_CHECKING:
    from serve.provenance.keys import PrivateKey


def test_what_is_signed_is_what_the_protocol_says() -> None:
    # The example of the DSSE protocol's own page.
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert authenticated("http://example.com/HelloWorld", b"hello world") == expected


def test_lengths_are_of_bytes() -> None:
    assert authenticated("ü", "ü".encode()) == "DSSEv1 2 ü 2 ü".encode()


def test_an_envelope_gives_back_its_statement(key: PrivateKey, other_key: PrivateKey) -> None:
    sealed = seal(b'{"a": 1}', key)
    assert open_envelope(sealed, [other_key.public, key.public]) == (b'{"a": 1}', key.public)
    assert open_envelope(sealed, [other_key.public]) == (b'{"a": 1}', None)
    document = json.loads(sealed)
    assert document["payloadType"] == STATEMENT_TYPE
    assert base64.b64decode(document["payload"]) == b'{"a": 1}'
    assert [set(each) >= {"sig"} for each in document["signatures"]] == [True]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"payloadType": 1}'])
def test_other_documents_are_refused(content: bytes) -> None:
    with pytest.raises(VerificationError, match="no DSSE envelope"):
        open_envelope(content, [])


def test_other_contents_are_refused(key: PrivateKey) -> None:
    document = json.loads(seal(b"{}", key)) | {"payloadType": "text/plain"}
    with pytest.raises(VerificationError, match="text/plain"):
        open_envelope(json.dumps(document).encode(), [key.public])
