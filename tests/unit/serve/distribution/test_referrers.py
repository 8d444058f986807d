"""What is attached to images, in registries that list it and in those that do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from scoring import digest as digests
from scoring.errors import (
    DigestMismatchError,
    RegistryBusyError,
    RegistryDeniedError,
    UsageError,
)
from serve.distribution.client import PUSH, RegistryClient
from serve.distribution.documents import OCI_MANIFEST, to_json
from serve.distribution.pushing import push
from serve.distribution.reference import parse_reference
from serve.distribution.referrers import attach, fetch, list_referrers, tag_of
from tests.support import oci
from tests.support.registry import DockerRegistry
from tests.support.tiny_registry import Handler, TinyRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve.distribution.options import Options

EMPTY = b"{}"


@pytest.fixture(params=["debian", "lists", "does not list"])
def client(
    request: pytest.FixtureRequest, options: Options, tmp_path: Path
) -> Iterator[RegistryClient]:
    """An image in a registry."""
    if request.param == "debian":
        debian: DockerRegistry = request.getfixturevalue("registry")
        yield with_image(debian.host, options, tmp_path)
        return
    with TinyRegistry(referrers=request.param == "lists") as tiny:
        yield with_image(tiny.host, options, tmp_path)


def with_image(host: str, options: Options, tmp_path: Path) -> RegistryClient:
    image = oci.make_image(oci.make_store(tmp_path / "store"), [b"layer"])
    reference = parse_reference(f"{host}/referrers/{tmp_path.name.lower().replace('_', '-')}:1")
    push(image.root, image.content, reference, options=options)
    return RegistryClient(reference, actions=PUSH, hosts=options.hosts, limits=options.limits)


def artifact(
    subject: str, text: str, kind: str = "application/x-test"
) -> tuple[bytes, list[bytes]]:
    blob = text.encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": descriptor(EMPTY),
        "layers": [descriptor(blob)],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 3},
    }
    return to_json(manifest), [EMPTY, blob]


def descriptor(data: bytes) -> dict[str, object]:
    return {"mediaType": "text/plain", "digest": digests.of_bytes(data), "size": len(data)}


def subject(client: RegistryClient) -> str:
    found = client.find_manifest("1")
    assert found is not None
    return found.digest


def test_what_is_attached_is_listed_once(client: RegistryClient) -> None:
    digest = subject(client)
    assert list_referrers(client, digest) == ()
    for text, kind in (("a", "x/one"), ("b", "x/two"), ("a", "x/one")):
        attach(client, *artifact(digest, text, kind))
    found = list_referrers(client, digest)
    assert sorted(str(each.artifact_type) for each in found) == ["x/one", "x/two"]
    (two,) = list_referrers(client, digest, "x/two")
    attached = fetch(client, two)
    assert b"b" in attached.blobs.values()
    assert attached.document.subject == digest
    assert list_referrers(client, digest, "x/three") == ()


def test_other_images_have_nothing(client: RegistryClient) -> None:
    attach(client, *artifact(subject(client), "a"))
    assert list_referrers(client, "sha256:" + "0" * 64) == ()


def test_a_manifest_without_subject_is_attached_to_nothing(client: RegistryClient) -> None:
    manifest, blobs = artifact(subject(client), "a")
    document = json.loads(manifest)
    del document["subject"]
    with pytest.raises(UsageError, match="no subject"):
        attach(client, json.dumps(document).encode(), blobs)
    with pytest.raises(UsageError, match="not given"):
        attach(client, artifact(subject(client), "not given")[0], [])


def test_another_writer_of_the_list_is_not_lost(tmp_path: Path, options: Options) -> None:
    with TinyRegistry(referrers=False) as tiny:
        client = with_image(tiny.host, options, tmp_path)
        digest = subject(client)
        other = artifact(digest, "other")

        def come_between(request: Handler) -> bool:
            request.body()
            with_other = {"schemaVersion": 2, "manifests": [entry(other[0])]}
            name = client.reference.repository
            tiny.manifests[name, tag_of(digest)] = (to_json(with_other), "")
            request.answer(201)
            return True

        tiny.on("PUT", "manifests/sha256-", come_between)
        mine = attach(client, *artifact(digest, "mine"))
        found = {each.digest for each in list_referrers(client, digest)}
        assert found == {mine.digest, digests.of_bytes(other[0])}


def entry(manifest: bytes) -> dict[str, object]:
    return {
        "mediaType": OCI_MANIFEST,
        "digest": digests.of_bytes(manifest),
        "size": len(manifest),
    }


@pytest.mark.parametrize(("status", "kind"), [(403, RegistryDeniedError), (503, RegistryBusyError)])
def test_a_refusal_is_no_empty_list(
    tmp_path: Path, options: Options, status: int, kind: type[Exception]
) -> None:
    with TinyRegistry() as tiny:
        client = with_image(tiny.host, options, tmp_path)

        def refuse(request: Handler) -> bool:
            request.error(status, "NO")
            return True

        tiny.on("GET", "referrers/", refuse, times=99)
        with pytest.raises(kind):
            list_referrers(client, subject(client))


def test_a_list_of_nonsense_gives_nothing_to_follow(tmp_path: Path, options: Options) -> None:
    with TinyRegistry() as tiny:
        client = with_image(tiny.host, options, tmp_path)

        def nonsense(request: Handler) -> bool:
            listed = [{"mediaType": "", "digest": "../../etc", "size": 1}]
            request.answer(200, json.dumps({"manifests": listed}).encode())
            return True

        tiny.on("GET", "referrers/", nonsense)
        assert list_referrers(client, subject(client)) == ()


def test_a_list_with_nulls_is_a_list(tmp_path: Path, options: Options) -> None:
    with TinyRegistry() as tiny:
        client = with_image(tiny.host, options, tmp_path)
        entry = {"mediaType": OCI_MANIFEST, "digest": subject(client), "size": 1}

        def nulls(request: Handler) -> bool:
            listed = [entry | {"artifactType": None, "annotations": None}]
            request.answer(200, json.dumps({"manifests": listed}).encode())
            return True

        tiny.on("GET", "referrers/", nulls)
        (found,) = list_referrers(client, subject(client))
        assert (found.digest, found.annotations) == (subject(client), None)


def test_a_damaged_attachment_is_refused(tmp_path: Path, options: Options) -> None:
    with TinyRegistry() as tiny:
        client = with_image(tiny.host, options, tmp_path)
        found = attach(client, *artifact(subject(client), "signature"))
        tiny.blobs[digests.of_bytes(b"signature")] = b"signaturf"
        with pytest.raises(DigestMismatchError):
            fetch(client, found)
