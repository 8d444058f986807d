"""Signatures and documents in a real registry, judged by other tools, and attacked."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from scoring import digest as digests
from scoring.errors import (
    DigestMismatchError,
    FieldpostError,
    UnsignedError,
    VerificationError,
)
from serve import Workspace
from serve.distribution.client import PUSH, RegistryClient
from serve.distribution.content import Descriptor
from serve.distribution.documents import OCI_MANIFEST
from serve.distribution.memory import Memory
from serve.distribution.progress import Progress
from serve.distribution.reference import parse_reference
from serve.distribution.referrers import InMemory, Referrer, attach, enlist, list_referrers
from serve.distribution.uploads import Upload
from serve.provenance import artifacts, slsa
from serve.provenance.artifacts import Subject
from serve.provenance.keyfiles import load_private, load_public, write_pair
from serve.provenance.keys import PrivateKey
from tests.support import registry as registries
from tests.support import smallbases
from tests.support.small_packages import small_package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.registry.records import Package
    from tests.support.registry import DockerRegistry

pytestmark = pytest.mark.skipif(
    not registries.is_installed(), reason="docker-registry is not installed"
)
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"


@pytest.fixture(scope="module")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    running = registries.DockerRegistry(tmp_path_factory.mktemp("registry"))
    running.start()
    yield running
    running.kill()


@dataclass(frozen=True)
class Pushed:
    """An image in the registry."""

    workspace: Workspace
    package: Package
    reference: str
    digest: str
    key: PrivateKey
    registry: DockerRegistry
    base: str

    @property
    def name(self) -> str:
        return self.reference.rpartition(":")[0]

    def verify(self, **given: Any) -> Any:
        return self.workspace.packages.verify_image(self.reference, [self.key.public], **given)

    def client(self) -> RegistryClient:
        return RegistryClient(parse_reference(self.reference), actions=PUSH)

    def stored(self, digest: str) -> Path:
        hexadecimal = digests.parse(digest)
        blobs = self.registry.storage / "docker/registry/v2/blobs/sha256"
        return blobs / hexadecimal[:2] / hexadecimal / "data"


@pytest.fixture
def pushed(tmp_path: Path, docker_registry: DockerRegistry) -> Iterator[Pushed]:
    base = tmp_path / "base.tar"
    base.write_bytes(smallbases.archive(smallbases.system()))
    with Workspace(tmp_path / "workspace") as workspace:
        # Other bytes in each test: they share the registry, and some damage what is in it.
        package = small_package(workspace, tmp_path, content=tmp_path.name.encode())
        name = f"{docker_registry.host}/{tmp_path.name.replace('_', '-')}"
        done = workspace.packages.push(package, f"{name}:1", base=f"rootfs:{base}")
        assert not done.warning
        yield Pushed(
            workspace,
            package,
            f"{name}:1",
            done.digest,
            PrivateKey.generate(),
            docker_registry,
            f"rootfs:{base}",
        )


@pytest.fixture
def signed(pushed: Pushed) -> Pushed:
    signed = pushed.workspace.packages.sign_image(pushed.reference, pushed.key)
    assert set(signed) == {pushed.digest, pushed.package.digest}
    return pushed


def fetch(pushed: Pushed, path: str, accept: str = OCI_MANIFEST) -> bytes:
    """From the registry, without any of our code."""
    repository = pushed.name.partition("/")[2]
    url = f"{pushed.registry.url}/v2/{repository}/{path}"
    with urlopen(Request(url, headers={"Accept": accept}), timeout=10) as answer:
        return bytes(answer.read())


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_pushed_images_have_their_documents_beside_them(pushed: Pushed) -> None:
    with pushed.client() as client:
        kinds = {each.artifact_type for each in list_referrers(client, pushed.digest)}
        assert kinds == {
            artifacts.SPDX_TYPE,
            artifacts.CYCLONEDX_TYPE,
            artifacts.PROVENANCE_TYPE,
        }
    verdict = pushed.workspace.packages.verify_image(pushed.reference)
    assert verdict.digest == pushed.digest
    assert set(verdict.documents) == kinds


def test_attaching_again_sends_nothing(signed: Pushed) -> None:
    assert signed.workspace.packages.attach_to_image(signed.reference) == 0


def test_a_signed_image_verifies_by_tag_and_by_digest(signed: Pushed) -> None:
    for reference in (signed.reference, f"{signed.name}@{signed.digest}"):
        verdict = signed.workspace.packages.verify_image(reference, [signed.key.public])
        assert verdict.keys == (signed.key.public.fingerprint,)
        assert len(verdict.attestations) == 3


def test_the_signature_is_where_and_what_cosign_says(signed: Pushed, tmp_path: Path) -> None:
    """Checked with nothing of ours: an HTTP client, a JSON parser, and openssl."""
    tag = f"sha256-{digests.parse(signed.digest)}.sig"
    manifest = json.loads(fetch(signed, f"manifests/{tag}"))
    assert manifest["schemaVersion"] == 2
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == PAYLOAD
    payload = fetch(signed, f"blobs/{layer['digest']}")
    assert len(payload) == layer["size"]
    document = json.loads(payload)
    assert document["critical"] == {
        "identity": {"docker-reference": signed.name},
        "image": {"docker-manifest-digest": signed.digest},
        "type": "cosign container image signature",
    }
    config = json.loads(fetch(signed, f"blobs/{manifest['config']['digest']}"))
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    files = {name: tmp_path / name for name in ("payload", "signature", "cosign.pub")}
    files["payload"].write_bytes(payload)
    text = layer["annotations"]["dev.cosignproject.cosign/signature"]
    files["signature"].write_bytes(base64.b64decode(text))
    files["cosign.pub"].write_bytes(signed.key.public.pem)
    checked = run(
        *("openssl", "dgst", "-sha256", "-verify", files["cosign.pub"]),
        *("-signature", files["signature"], files["payload"]),
    )
    assert "Verified OK" in checked.stdout


def test_cosign_itself_accepts_it(signed: Pushed, tmp_path: Path) -> None:
    if shutil.which("cosign") is None:
        pytest.skip("cosign is not installed")
    public = tmp_path / "cosign.pub"
    public.write_bytes(signed.key.public.pem)
    key = ["--key", str(public), "--insecure-ignore-tlog=true", "--allow-http-registry"]
    reference = f"{signed.name}@{signed.digest}"
    kinds = ("slsaprovenance1", "spdxjson", "cyclonedx")
    for command in (["verify"], *(["verify-attestation", "--type", kind] for kind in kinds)):
        done = run("cosign", *command, *key, reference)
        assert done.returncode == 0, done.stderr


def test_cosign_signs_with_our_keys_what_we_accept(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("cosign") is None:
        pytest.skip("cosign is not installed")
    private, _ = write_pair(pushed.key, "pw", tmp_path / "cosign")
    monkeypatch.setenv("COSIGN_PASSWORD", "pw")
    options = ("--key", private, "--tlog-upload=false", "--yes", "--allow-http-registry")
    done = run("cosign", "sign", *options, f"{pushed.name}@{pushed.digest}")
    assert done.returncode == 0, done.stderr
    assert pushed.verify().keys == (pushed.key.public.fingerprint,)


def test_keys_and_attestations_of_cosign_itself_are_taken(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("cosign") is None:
        pytest.skip("cosign is not installed")
    monkeypatch.setenv("COSIGN_PASSWORD", "pw")
    prefix, predicate = str(tmp_path / "theirs"), tmp_path / "predicate.json"
    assert run("cosign", "generate-key-pair", "--output-key-prefix", prefix).returncode == 0
    predicate.write_text('{"scanned": "today"}')
    options = ("--tlog-upload=false", "--yes", "--allow-http-registry", "--type", "custom")
    image = f"{pushed.name}@{pushed.digest}"
    done = run(
        *("cosign", "attest", "--key", f"{prefix}.key", "--predicate", predicate, *options, image)
    )
    assert done.returncode == 0, done.stderr
    pushed.workspace.packages.sign_image(image, load_private(Path(f"{prefix}.key"), lambda: "pw"))
    (public,) = load_public(Path(f"{prefix}.pub"))
    verdict = pushed.workspace.packages.verify_image(image, [public])
    assert "https://cosign.sigstore.dev/attestation/v1" in verdict.attestations
    assert len(verdict.attestations) == 4
    checking = ("--key", f"{prefix}.pub", "--insecure-ignore-tlog=true", "--allow-http-registry")
    for command in (["verify"], ["verify-attestation", "--type", "custom"]):
        assert run("cosign", *command, *checking, image).returncode == 0


def test_the_library_of_skopeo_and_podman_finds_it(signed: Pushed, tmp_path: Path) -> None:
    """Debian's build finds signatures and does not check them; others check them, too."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    public = tmp_path / "cosign.pub"
    public.write_bytes(signed.key.public.pem)
    requirement = {
        "type": "sigstoreSigned",
        "keyPath": str(public),
        "signedIdentity": {"type": "matchRepository"},
    }
    policy = tmp_path / "policy.json"
    policy.write_text(
        json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {signed.registry.host: [requirement]}},
            }
        )
    )
    settings = tmp_path / "registries.d"
    settings.mkdir()
    (settings / "default.yaml").write_text("default-docker: {use-sigstore-attachments: true}\n")
    done = run(
        *("skopeo", "--policy", policy, "--registries.d", settings, "copy"),
        *("--src-tls-verify=false", f"docker://{signed.reference}", f"dir:{tmp_path}/out"),
    )
    assert done.returncode == 0 or "sigstore disabled" in done.stderr, done.stderr


def test_a_pulled_package_brings_its_signature_along(signed: Pushed, tmp_path: Path) -> None:
    with Workspace(tmp_path / "elsewhere") as other:
        pulled = other.packages.pull(signed.reference)
        assert pulled.package.digest == signed.package.digest
        verdict = other.packages.verify(pulled.package, [signed.key.public])
        assert verdict.keys == (signed.key.public.fingerprint,)
        assert verdict.attestations == (slsa.PREDICATE,)
        ours = signed.workspace.packages
        assert other.packages.provenance(pulled.package) == ours.provenance(signed.package)
        other.require_signatures([PrivateKey.generate().public])
        with pytest.raises(VerificationError, match="not by a trusted key"):
            other.deploy("iris", pulled.package)


def test_a_signature_made_here_goes_along_with_a_push(pushed: Pushed) -> None:
    packages = pushed.workspace.packages
    packages.sign(pushed.package, pushed.key)
    packages.push(pushed.package, pushed.reference, base=pushed.base)
    reference = f"{pushed.name}@{pushed.package.digest}"
    verdict = packages.verify_image(reference, [pushed.key.public])
    assert verdict.keys == (pushed.key.public.fingerprint,)
    with pytest.raises(UnsignedError):
        pushed.verify()


def test_signing_again_adds_no_second_signature(signed: Pushed) -> None:
    tag = f"sha256-{digests.parse(signed.digest)}.sig"
    before = fetch(signed, f"manifests/{tag}")
    signed.workspace.packages.sign_image(signed.reference, signed.key)
    assert fetch(signed, f"manifests/{tag}") == before
    second = PrivateKey.generate()
    signed.workspace.packages.sign_image(signed.reference, second)
    assert len(json.loads(fetch(signed, f"manifests/{tag}"))["layers"]) == 2
    for key in (signed.key, second):
        signed.workspace.packages.verify_image(signed.reference, [key.public])


def test_images_of_several_platforms_are_signed_as_one_and_each(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    key = PrivateKey.generate()
    bases = {}
    for platform in ("linux/amd64", "linux/arm64"):
        archive = smallbases.archive(smallbases.system(platform=platform))
        bases[platform] = tmp_path / f"{platform[6:]}.tar"
        bases[platform].write_bytes(archive)
    with Workspace(tmp_path / "workspace") as workspace:
        parts = [
            small_package(workspace, tmp_path, content=platform.encode(), platform=platform)
            for platform in bases
        ]
        package = workspace.packages._combine(parts)
        reference = f"{docker_registry.host}/several:1"
        workspace.packages.push(package, reference, bare=True)
        with pytest.raises(UnsignedError):
            workspace.packages.verify_image(reference, [key.public])
        signed = workspace.packages.sign_image(reference, key)
        assert set(signed) == {package.digest, *(part.digest for part in parts)}
        for digest in signed:
            workspace.packages.verify_image(
                f"{docker_registry.host}/several@{digest}", [key.public]
            )
        assert workspace.packages.verify_image(reference, [key.public]).digest == package.digest


def test_no_signature_and_another_key_are_told(pushed: Pushed) -> None:
    with pytest.raises(UnsignedError, match="has no signature"):
        pushed.verify()
    pushed.workspace.packages.sign_image(pushed.reference, PrivateKey.generate())
    with pytest.raises(VerificationError, match="not by a trusted key"):
        pushed.verify()


def test_every_blob_in_the_registry_is_checked(signed: Pushed) -> None:
    """Manifests, too: the registry itself answers 500 for one that it finds changed."""
    with signed.client() as client:
        entries = list_referrers(client, signed.digest)
        manifests = [client.manifest(each.digest) for each in entries]
        blobs = {blob.digest for each in manifests for blob in each.layers}
        image, package = client.manifest(signed.digest), client.manifest(signed.package.digest)
        blobs |= {blob.digest for each in (image, package) for blob in each.blobs}
    assert len(blobs) >= 6 + 3 + 3 + 1
    for digest in sorted(blobs):
        path = signed.stored(digest)
        content = path.read_bytes()
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        try:
            with pytest.raises(DigestMismatchError):
                signed.verify()
        finally:
            path.write_bytes(content)
    signed.verify()


def test_layers_need_not_be_read(signed: Pushed) -> None:
    with signed.client() as client:
        layer = client.manifest(signed.digest).layers[-1]
    signed.stored(layer.digest).write_bytes(b"\0" * layer.size)
    assert signed.verify(whole=False).keys
    with pytest.raises(DigestMismatchError):
        signed.verify()


def other_image(signed: Pushed, tmp_path: Path) -> str:
    """Another image in the same repository, at the tag 2; its digest."""
    folder = tmp_path / "other"
    folder.mkdir()
    package = small_package(signed.workspace, folder, name="evil", content=b"malware")
    to = f"{signed.name}:2"
    return signed.workspace.packages.push(package, to, base=signed.base).digest


EMPTY = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": digests.of_bytes(b"{}"),
    "size": 2,
}
JWS = {"mediaType": "application/jose+json", "digest": digests.of_bytes(b"jws"), "size": 3}
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (OCI_MANIFEST, {"config": EMPTY, "layers": [JWS], "artifactType": "application/x.notary"}),
        (OCI_MANIFEST, {"config": EMPTY, "layers": []}),
        (OCI_INDEX, {"manifests": [], "artifactType": "application/x.index"}),
        (OCI_INDEX, {"manifests": [], "annotations": None}),
    ],
    ids=["a signature of another kind", "nothing", "an index", "an index of no kind"],
)
def test_what_other_tools_attach_is_left_alone(
    signed: Pushed, kind: str, parts: dict[str, Any], tmp_path: Path
) -> None:
    with signed.client() as client:
        content = InMemory({digests.of_bytes(each): each for each in (b"{}", b"jws")})
        for blob in (EMPTY, JWS):
            wanted = Descriptor("", str(blob["digest"]), int(str(blob["size"])))
            Upload(client, wanted, content, Memory(None), Progress()).run()
        for digest in (signed.digest, signed.package.digest):
            root = client.manifest(digest).descriptor
            subject = {"mediaType": root.media_type, "digest": root.digest, "size": root.size}
            document = {"schemaVersion": 2, "mediaType": kind, "subject": subject, **parts}
            data = json.dumps(document).encode()
            assert not client.put_referrer(data, kind)
            entry = Referrer(kind, digests.of_bytes(data), len(data), parts.get("artifactType"))
            enlist(client, digest, [entry])
    assert signed.verify().keys == (signed.key.public.fingerprint,)
    assert signed.workspace.packages.sign_image(signed.reference, signed.key)
    with Workspace(tmp_path / "other") as other:
        other.packages.pull(signed.reference)


def test_a_tag_that_was_moved_to_another_image_is_told(signed: Pushed, tmp_path: Path) -> None:
    evil = other_image(signed, tmp_path)
    with signed.client() as client:
        client.put_manifest(client.manifest(evil).data, OCI_MANIFEST, "1")
    with pytest.raises(UnsignedError, match=evil):
        signed.verify()


def test_a_signature_copied_to_another_image_is_told(signed: Pushed, tmp_path: Path) -> None:
    evil = other_image(signed, tmp_path)
    with signed.client() as client:
        kept = client.manifest(artifacts.tag(signed.digest, "sig"))
        client.put_manifest(kept.data, OCI_MANIFEST, artifacts.tag(evil, "sig"))
    with pytest.raises(VerificationError, match="that of another image"):
        signed.workspace.packages.verify_image(f"{signed.name}@{evil}", [signed.key.public])


def test_a_payload_that_was_rewritten_is_told(signed: Pushed, tmp_path: Path) -> None:
    """The signature's image with a payload that names the attacker's image."""
    evil = other_image(signed, tmp_path)
    with signed.client() as client:
        kept = client.manifest(artifacts.tag(signed.digest, "sig"))
        payload = client.read_blob(kept.layers[0])
        forged = payload.replace(signed.digest.encode(), evil.encode())
        subject = Subject(evil, client.manifest(evil).descriptor.size)
        made = artifacts.Signed(
            forged, artifacts.signature_of(artifacts.parse(kept.data).layers[0])
        )
        artifact = artifacts.signature(made, subject)
        attach(client, artifact.manifest, artifact.blobs)
    with pytest.raises(VerificationError, match="not by a trusted key"):
        signed.workspace.packages.verify_image(f"{signed.name}@{evil}", [signed.key.public])


def test_an_sbom_that_was_swapped_is_told(signed: Pushed) -> None:
    with signed.client() as client:
        (entry,) = list_referrers(client, signed.digest, artifacts.SPDX_TYPE)
        manifest = client.manifest(entry.digest)
        content = json.loads(client.read_blob(manifest.layers[0]))
        content["packages"] = content["packages"][:1]
        subject = Subject(signed.digest, client.manifest(signed.digest).descriptor.size)
        changed = json.dumps(content).encode()
        artifact = artifacts.document(changed, artifacts.SPDX_TYPE, subject, title="x")
        attach(client, artifact.manifest, artifact.blobs)
    with pytest.raises(VerificationError, match=r"SPDX document .* is not the one that was signed"):
        signed.verify()


@pytest.mark.parametrize("part", ["environment", "runtime", "base"])
def test_an_sbom_of_another_image_is_told(pushed: Pushed, part: str) -> None:
    """One whose environment, runtime or base is another; what models share is not told apart."""
    with pushed.client() as client:
        (entry,) = list_referrers(client, pushed.digest, artifacts.CYCLONEDX_TYPE)
        content = json.loads(client.read_blob(client.manifest(entry.digest).layers[0]))
        named = {each["bom-ref"]: each for each in content["components"]}
        found = content["metadata"]["component"] if part == "environment" else named[part]
        found["hashes"][0]["content"] = "ab" * 32
        subject = Subject(pushed.digest, client.manifest(pushed.digest).descriptor.size)
        changed = json.dumps(content).encode()
        artifact = artifacts.document(changed, artifacts.CYCLONEDX_TYPE, subject, title="x")
        attach(client, artifact.manifest, artifact.blobs)
    with pytest.raises(VerificationError, match="CycloneDX document does not speak of"):
        pushed.workspace.packages.verify_image(pushed.reference)


def test_another_model_shares_the_sboms_of_its_environment(pushed: Pushed, tmp_path: Path) -> None:
    package = small_package(pushed.workspace, tmp_path, content=b"trained anew")
    packages = pushed.workspace.packages
    other = packages.push(package, f"{pushed.name}:2", base=pushed.base).digest
    with pushed.client() as client:
        layers = [
            {
                each.artifact_type: client.manifest(each.digest).layers[0].digest
                for each in list_referrers(client, image)
            }
            for image in (pushed.digest, other)
        ]
    shared = {kind for kind in layers[0] if layers[0][kind] == layers[1][kind]}
    assert shared == {artifacts.SPDX_TYPE, artifacts.CYCLONEDX_TYPE}
    assert packages.verify_image(f"{pushed.name}@{other}").digest == other


def test_attestations_that_were_deleted_are_told(signed: Pushed) -> None:
    with signed.client() as client:
        for entry in list_referrers(client, signed.digest, artifacts.ATTESTATION_TYPE):
            client.delete_manifest(entry.digest)
        client.delete_manifest(client.manifest(artifacts.tag(signed.digest, "att")).digest)
    with pytest.raises((VerificationError, FieldpostError), match=r"missing|no manifest"):
        signed.verify()


def test_an_image_that_is_not_its_package_is_told(pushed: Pushed) -> None:
    """A layer on top would be run and is none of the package's."""
    with pushed.client() as client:
        document = json.loads(client.manifest(pushed.digest).data)
        config = json.loads(fetch(pushed, f"blobs/{document['config']['digest']}"))
        document["layers"].append(document["layers"][0])
        config["rootfs"]["diff_ids"].append(config["rootfs"]["diff_ids"][0])
        content = json.dumps(config).encode()
        document["config"] |= {"digest": digests.of_bytes(content), "size": len(content)}
        manifest = json.dumps(document | {"subject": document["config"]}).encode()
        attach(client, manifest, [content])
        client.put_manifest(manifest, OCI_MANIFEST, "evil")
    reference = f"{pushed.name}:evil"
    with pytest.raises(VerificationError, match="its layers are others"):
        pushed.workspace.packages.verify_image(reference)


def test_a_registry_without_the_package_is_told(pushed: Pushed) -> None:
    """An image of another release, say: the package cannot be made again from it."""
    with pushed.client() as client:
        document = json.loads(client.manifest(pushed.digest).data)
        document["annotations"]["more"] = "than there was"
        other = client.put_manifest(json.dumps(document).encode(), OCI_MANIFEST, "other")
        client.delete_manifest(pushed.package.digest)
    with pytest.raises(VerificationError, match="is not in the registry") as caught:
        pushed.workspace.packages.verify_image(f"{pushed.name}:other")
    assert other.removeprefix("sha256:") in caught.value.hint  # the tag that copies need


def test_a_copy_without_the_package_verifies(signed: Pushed) -> None:
    """As other tools copy: the image and its signature, and not what stands beside them."""
    with signed.client() as client:
        client.delete_manifest(signed.package.digest)
    assert signed.verify().keys == (signed.key.public.fingerprint,)
    other = PrivateKey.generate()  # whoever takes it over signs what is there
    packages = signed.workspace.packages
    assert packages.sign_image(signed.reference, other) == (signed.digest,)
    assert packages.verify_image(signed.reference, [other.public]).signatures == 2
