"""Envelopes: the bytes that were signed, kept as they are."""

from __future__ import annotations

import base64
import json

import pytest

from edge.protocol import envelope as e
from scoring.errors import MalformedPayloadError, PayloadTooLargeError

SIGNATURE = e.Signature(keyid="k", sig="00ff")


def test_there_and_back() -> None:
    found = e.decode(e.encode("desired", b'{"a": 1}', (SIGNATURE,)))
    assert (found.type, found.body(), found.signatures) == ("desired", b'{"a": 1}', (SIGNATURE,))


def test_the_type_is_signed_too() -> None:
    assert e.signed_bytes("desired", b"x") != e.signed_bytes("command", b"x")
    # The encoding of DSSE's own specification, with our type.
    expected = b"DSSEv1 38 application/vnd.fieldpost.desired+json 1 x"
    assert e.signed_bytes("desired", b"x") == expected


@pytest.mark.parametrize(
    "change",
    [
        {"type": "other"},
        {"signatures": [{"keyid": "k", "sig": "0"}]},
        {"signatures": [{"keyid": "k", "sig": "FF"}]},
        {"signatures": [{"keyid": "k", "sig": "00"}] * 9},
        {"payload": 1},
    ],
)
def test_wrong_envelopes_are_refused(change: dict[str, object]) -> None:
    document = json.loads(e.encode("desired", b"{}", (SIGNATURE,))) | change
    with pytest.raises(MalformedPayloadError):
        e.decode(json.dumps(document).encode())


@pytest.mark.parametrize("payload", ["e30", "e30=\n", "{}", "é"])
def test_payloads_are_strict_base64(payload: str) -> None:
    found = e.Envelope(type="desired", payload=payload, signatures=())
    with pytest.raises(MalformedPayloadError):
        found.body()
    assert base64.b64decode("e30=") == b"{}"


def test_large_envelopes_are_refused() -> None:
    with pytest.raises(PayloadTooLargeError):
        e.encode("desired", b"x" * 60000, ())
    with pytest.raises(PayloadTooLargeError):
        e.decode(b"x" * 70000)
