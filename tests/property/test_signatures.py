"""No signature, envelope or document holds once a single byte of it is another."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import digest as digests
from scoring.errors import FieldpostError, VerificationError
from serve.provenance import artifacts, checks, dsse, keyfiles, signing, slsa
from serve.provenance.artifacts import Artifact, Signed, Subject
from serve.provenance.checks import Evidence
from serve.provenance.keys import PrivateKey

SUBJECT = Subject(digests.of_bytes(b"an image"), 8)
STATEMENTS = {
    kind: slsa.statement(kind, {"about": kind}, {"image": SUBJECT.digest})
    for kind in (slsa.PREDICATE, slsa.SPDX_PREDICATE)
}


@cache
def key() -> PrivateKey:
    return PrivateKey.generate()


@cache
def evidence() -> Evidence:
    found = checks.Found(SUBJECT.digest)
    for artifact in signing.sign(SUBJECT, STATEMENTS, key(), "registry.example/iris"):
        take(found, artifact)
    return found.evidence()


def take(found: checks.Found, artifact: Artifact) -> None:
    blobs = {digests.of_bytes(blob): blob for blob in artifact.blobs}
    found.add(artifacts.parse(artifact.manifest), lambda part: blobs[part.digest])


def flipped(content: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[at % len(changed)] ^= 1 << bit
    return bytes(changed)


def test_untouched_it_holds() -> None:
    verdict = checks.check(evidence(), [key().public])
    assert verdict.attestations == tuple(sorted(STATEMENTS))


@given(st.sampled_from(["payload", "signature"]), st.integers(0, 1 << 16), st.integers(0, 7))
def test_a_changed_signature_is_refused(part: str, at: int, bit: int) -> None:
    (signed,) = evidence().signatures
    changed = msgspec.structs.replace(signed, **{part: flipped(getattr(signed, part), at, bit)})
    forged = msgspec.structs.replace(evidence(), signatures=(changed,))
    with pytest.raises(VerificationError):
        checks.check(forged, [key().public])


@given(st.integers(0, 1), st.integers(0, 1 << 16), st.integers(0, 7))
def test_a_changed_attestation_is_refused_or_says_the_same(which: int, at: int, bit: int) -> None:
    envelopes = list(evidence().envelopes)
    before = dsse.open_envelope(envelopes[which], [key().public])
    envelopes[which] = flipped(envelopes[which], at, bit)
    forged = msgspec.structs.replace(evidence(), envelopes=tuple(envelopes))
    try:
        checks.check(forged, [key().public])
    except VerificationError:
        return
    # A bit in what nobody signs: the key's name, padding of base64, a blank.
    assert dsse.open_envelope(envelopes[which], [key().public]) == before


@given(st.binary(max_size=300))
def test_whatever_stands_in_a_document_is_judged_and_no_defect(content: bytes) -> None:
    for kind in (artifacts.SPDX_TYPE, artifacts.CYCLONEDX_TYPE, artifacts.PROVENANCE_TYPE):
        found = Evidence(SUBJECT.digest, documents=(checks.Attached(kind, content),))
        with pytest.raises(VerificationError):
            checks.check(found, ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["critical", "image", "type", "packages", "checksums", "metadata"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_a_trusted_key_signs_is_judged_and_no_defect(document: object) -> None:
    payload = msgspec.json.encode(document)
    signed = Signed(payload, key().sign(payload))
    found = Evidence(
        SUBJECT.digest, signatures=(signed,), envelopes=(dsse.seal(payload, key()), payload)
    )
    with pytest.raises(VerificationError):
        checks.check(found, [key().public])
    for kind in (artifacts.SPDX_TYPE, artifacts.CYCLONEDX_TYPE, artifacts.PROVENANCE_TYPE):
        with pytest.raises(VerificationError):
            checks.check(Evidence(SUBJECT.digest, documents=(checks.Attached(kind, payload),)), ())


@given(st.binary(max_size=400), st.booleans())
def test_whatever_a_key_file_holds_is_judged_and_no_defect(content: bytes, wrapped: bool) -> None:
    if wrapped:
        content = b"-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n" % content
    with pytest.raises(FieldpostError):
        keyfiles.parse_public(content, "the file")
