"""Signatures of packages in a workspace, and what attackers may do to them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import DigestMismatchError, UnsignedError, VerificationError
from serve import Workspace
from serve.provenance import artifacts, local, signing, slsa
from serve.provenance.artifacts import Signed
from serve.provenance.recording import attach
from tests.support.small_packages import small_package

if TYPE_CHECKING:
    from pathlib import Path

    from serve.provenance.keys import PrivateKey
    from tests.unit.serve.provenance.conftest import Made


def test_what_was_signed_verifies(signed: Made, key: PrivateKey, other_key: PrivateKey) -> None:
    verdict = signed.workspace.packages.verify(signed.package, [other_key.public, key.public])
    assert verdict.digest == signed.package.digest
    assert verdict.keys == (key.public.fingerprint,)
    assert set(verdict.attestations) == {
        slsa.PREDICATE,
        slsa.SPDX_PREDICATE,
        slsa.CYCLONEDX_PREDICATE,
    }
    assert verdict.signatures == 1


def test_signing_again_adds_nothing(signed: Made, key: PrivateKey, other_key: PrivateKey) -> None:
    registry = signed.workspace.registry
    before = registry.referrers.list(signed.package.digest)
    signed.workspace.packages.sign(signed.package, key)
    assert registry.referrers.list(signed.package.digest) == before
    signed.workspace.packages.sign(signed.package, other_key)
    for each in (key, other_key):
        verdict = signed.workspace.packages.verify(signed.package, [each.public])
        assert (verdict.keys, verdict.signatures) == ((each.public.fingerprint,), 2)


def test_without_a_key_the_bytes_are_checked(made: Made) -> None:
    verdict = made.workspace.packages.verify(made.package)
    assert (verdict.keys, verdict.signatures) == ((), 0)
    assert verdict.documents == (artifacts.PROVENANCE_TYPE,)


def test_no_signature_is_told(made: Made, key: PrivateKey) -> None:
    with pytest.raises(UnsignedError, match="has no signature") as caught:
        made.workspace.packages.verify(made.package, [key.public])
    assert "package sign" in caught.value.hint


def test_another_key_is_told(signed: Made, other_key: PrivateKey) -> None:
    with pytest.raises(VerificationError, match="not by a trusted key") as caught:
        signed.workspace.packages.verify(signed.package, [other_key.public])
    assert other_key.public.fingerprint[:19] in caught.value.message
    assert not isinstance(caught.value, UnsignedError)


def test_every_damaged_byte_string_is_told(signed: Made, key: PrivateKey) -> None:
    registry = signed.workspace.registry
    digests = {signed.package.digest} | {blob.digest for blob in signed.package.blobs}
    for referrer in registry.referrers.list(signed.package.digest):
        digests |= {referrer.digest, *(blob.digest for blob in referrer.blobs[1:])}
    for digest in digests:
        path = registry.blobs.path(digest)
        path.chmod(0o644)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(DigestMismatchError):
            signed.workspace.packages.verify(signed.package, [key.public])
        path.write_bytes(content)
    signed.workspace.packages.verify(signed.package, [key.public])


def test_a_damaged_package_is_not_signed(made: Made, key: PrivateKey) -> None:
    path = made.workspace.registry.blobs.path(made.package.blobs[-1].digest)
    path.chmod(0o644)
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(DigestMismatchError):
        made.workspace.packages.sign(made.package, key)
    (left,) = made.workspace.registry.referrers.list(made.package.digest)
    assert left.artifact_type == artifacts.PROVENANCE_TYPE


def other_package(made: Made, folder: Path) -> Any:
    return small_package(made.workspace, folder, name="other", content=b"malware")


def replant(made: Made, source: str, target: str, kinds: set[str]) -> None:
    """Attaches to one package what is attached to another, as an attacker would."""
    registry = made.workspace.registry
    subject = local.subject(registry, target)
    for artifact in local.kept_artifacts(registry, source):
        if artifact.artifact_type in kinds:
            document = json.loads(artifact.manifest)
            document["subject"] |= {"digest": subject.digest, "size": subject.size}
            manifest = json.dumps(document).encode()
            registry.referrers.attach(
                manifest,
                artifact.blobs,
                subject=target,
                artifact_type=artifact.artifact_type,
            )


def test_a_signature_of_another_package_is_told(
    signed: Made, key: PrivateKey, tmp_path: Path
) -> None:
    victim = other_package(signed, tmp_path)
    replant(signed, signed.package.digest, victim.digest, {artifacts.SIGNATURE_TYPE})
    with pytest.raises(VerificationError, match="that of another image") as caught:
        signed.workspace.packages.verify(victim, [key.public])
    assert signed.package.digest in caught.value.message


def test_an_attestation_of_another_package_is_told(
    signed: Made, key: PrivateKey, tmp_path: Path
) -> None:
    victim = other_package(signed, tmp_path)
    signed.workspace.packages.sign(victim, key)
    replant(signed, signed.package.digest, victim.digest, {artifacts.ATTESTATION_TYPE})
    with pytest.raises(VerificationError, match="was copied here"):
        signed.workspace.packages.verify(victim, [key.public])


def test_documents_of_another_package_are_told(signed: Made, tmp_path: Path) -> None:
    victim = other_package(signed, tmp_path)
    replant(signed, signed.package.digest, victim.digest, {artifacts.PROVENANCE_TYPE})
    with pytest.raises(VerificationError, match="provenance does not speak of"):
        signed.workspace.packages.verify(victim)


def test_what_is_attached_to_one_and_speaks_of_another_is_told(
    signed: Made, tmp_path: Path
) -> None:
    victim = other_package(signed, tmp_path)
    registry = signed.workspace.registry
    artifact = local.kept_artifacts(registry, signed.package.digest)[0]
    registry.referrers.remove(registry.referrers.list(signed.package.digest)[:1])
    registry.referrers.attach(
        artifact.manifest,
        artifact.blobs,
        subject=victim.digest,
        artifact_type=artifact.artifact_type,
    )
    with pytest.raises(VerificationError, match="speaks of"):
        signed.workspace.packages.verify(victim)


@pytest.mark.parametrize("kind", ["spdx", "cyclonedx", "provenance"])
def test_a_document_that_was_changed_is_told(signed: Made, key: PrivateKey, kind: str) -> None:
    registry = signed.workspace.registry
    own = local.subject(registry, signed.package.digest)
    documents = signed.workspace.packages.documents(signed.package)
    content = json.loads(getattr(documents, kind))
    if kind == "provenance":
        content["predicate"]["runDetails"]["builder"]["id"] = "https://evil.example"
    else:
        content["packages" if kind == "spdx" else "components"].pop()
    changed = json.dumps(content).encode()
    kinds = {
        "spdx": artifacts.SPDX_TYPE,
        "cyclonedx": artifacts.CYCLONEDX_TYPE,
        "provenance": artifacts.PROVENANCE_TYPE,
    }
    attach(registry, artifacts.document(changed, kinds[kind], own, title="x"))
    with pytest.raises(VerificationError, match="is not the one that was signed"):
        signed.workspace.packages.verify(signed.package, [key.public])


def test_an_attestation_that_was_taken_away_is_told(signed: Made, key: PrivateKey) -> None:
    registry = signed.workspace.registry
    attested = registry.referrers.list(signed.package.digest, artifacts.ATTESTATION_TYPE)
    assert len(attested) == 3
    for one in attested:
        content = [registry.blobs.read_bytes(blob.digest) for blob in one.blobs]
        manifest = registry.referrers.manifest(one)
        registry.referrers.remove([one])
        with pytest.raises(VerificationError, match="missing or was replaced"):
            signed.workspace.packages.verify(signed.package, [key.public])
        registry.referrers.attach(
            manifest, content, subject=one.subject, artifact_type=one.artifact_type
        )
    signed.workspace.packages.verify(signed.package, [key.public])


def test_an_attestation_by_someone_else_in_its_place_is_told(
    signed: Made, key: PrivateKey, other_key: PrivateKey
) -> None:
    registry = signed.workspace.registry
    own = local.subject(registry, signed.package.digest)
    statements = signed.workspace.packages.documents(signed.package).statements
    registry.referrers.remove(registry.referrers.list(own.digest, artifacts.ATTESTATION_TYPE))
    for artifact in signing.sign(own, statements, other_key, "iris")[:-1]:
        attach(registry, artifact)
    with pytest.raises(VerificationError, match="missing or was replaced"):
        signed.workspace.packages.verify(signed.package, [key.public])


def test_what_others_attach_beside_it_does_no_harm(
    signed: Made, key: PrivateKey, other_key: PrivateKey
) -> None:
    """As with cosign: whoever may write to the registry could always add a signature."""
    registry = signed.workspace.registry
    own = local.subject(registry, signed.package.digest)
    attach(registry, artifacts.signature(Signed(b"{}", b"nonsense"), own))
    attach(registry, artifacts.signature(Signed(b"", other_key.sign(b"")), own))
    attach(registry, artifacts.document(b"\0\1", "application/x-unknown", own, title="x"))
    verdict = signed.workspace.packages.verify(signed.package, [key.public])
    assert verdict.signatures == 3


def test_a_trusted_key_that_signed_something_else_is_told(made: Made, key: PrivateKey) -> None:
    own = local.subject(made.workspace.registry, made.package.digest)
    for payload, message in (
        (b'{"critical": {"type": "x"}}', "no cosign document"),
        (
            b'{"critical": {"type": "atomic container signature", "image": '
            b'{"docker-manifest-digest": "%s"}}}' % own.digest.encode(),
            "something else than a container image",
        ),
    ):
        artifact = artifacts.signature(Signed(payload, key.sign(payload)), own)
        referrer = attach(made.workspace.registry, artifact)
        with pytest.raises(VerificationError, match=message):
            made.workspace.packages.verify(made.package, [key.public])
        made.workspace.registry.referrers.remove([referrer])


def test_the_policy_holds_deployments_back(
    signed: Made, key: PrivateKey, other_key: PrivateKey, tmp_path: Path
) -> None:
    workspace = signed.workspace
    unsigned = other_package(signed, tmp_path)

    def plan(package: Any, *keys: PrivateKey) -> None:
        workspace.plan_deployment(
            "web", package, target="local", settings={}, verify_keys=[k.public for k in keys]
        )

    plan(unsigned)
    plan(signed.package, key)
    with pytest.raises(VerificationError):
        plan(signed.package, other_key)
    workspace.require_signatures([key.public])
    assert workspace.required_signers() == (key.public,)
    plan(signed.package)
    with pytest.raises(UnsignedError):
        plan(unsigned)
    with pytest.raises(UnsignedError):
        workspace.deploy("web", unsigned)
    assert workspace.registry.deployments.list() == ()
    with pytest.raises(VerificationError):
        plan(signed.package, other_key)
    with Workspace(workspace.folder) as reopened:
        assert reopened.required_signers() == (key.public,)
    workspace.require_signatures([])
    plan(unsigned)
