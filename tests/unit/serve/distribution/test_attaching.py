"""What a push attaches to what it brings: all of it, once, with few questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pytest

from scoring import digest as digests
from scoring.errors import UsageError
from serve.distribution.client import PUSH, RegistryClient
from serve.distribution.documents import OCI_INDEX, OCI_MANIFEST, to_json
from serve.distribution.pushing import PushResult, push
from serve.distribution.reference import Reference, parse_reference
from serve.distribution.referrers import Referrer, attach, enlist, list_referrers, look_up, tag_of
from tests.support import oci
from tests.support.tiny_registry import Handler, TinyRegistry

if TYPE_CHECKING:
    from pathlib import Path

    from serve.distribution.options import Options

EMPTY = b"{}"


class Made(NamedTuple):
    """An artifact."""

    manifest: bytes
    blobs: tuple[bytes, ...]
    lasting: bool = False


class Attachments:
    """Texts for one subject."""

    def __init__(self, subject: str, *texts: str) -> None:
        self.subjects = (subject,)
        self._made = [artifact(subject, text) for text in texts]

    def missing(self, listed: Mapping[str, Sequence[Referrer]]) -> list[Made]:
        there = {each.digest for each in listed[self.subjects[0]]}
        return [each for each in self._made if digests.of_bytes(each.manifest) not in there]


def artifact(subject: str, text: str) -> Made:
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x-test",
        "config": descriptor(EMPTY),
        "layers": [descriptor(text.encode())],
    }
    named = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 3}
    return Made(to_json(manifest | ({"subject": named} if subject else {})), (EMPTY, text.encode()))


def descriptor(data: bytes) -> dict[str, object]:
    return {"mediaType": "text/plain", "digest": digests.of_bytes(data), "size": len(data)}


class Case(NamedTuple):
    """An image, and where it goes."""

    image: oci.SmallImage
    to: Reference
    options: Options

    def push(self, *texts: str) -> PushResult:
        subject = self.image.root.digest
        return push(
            self.image.root,
            self.image.content,
            self.to,
            attachments=Attachments(subject, *texts),
            options=self.options,
        )

    def client(self) -> RegistryClient:
        options = self.options
        return RegistryClient(self.to, actions=PUSH, hosts=options.hosts, limits=options.limits)

    def listed(self) -> set[str]:
        with self.client() as client:
            return {each.digest for each in list_referrers(client, self.image.root.digest)}


@pytest.fixture(params=[True, False], ids=["lists", "does not list"])
def tiny(request: pytest.FixtureRequest) -> Iterator[TinyRegistry]:
    with TinyRegistry(referrers=request.param) as found:
        yield found


@pytest.fixture
def case(tiny: TinyRegistry, options: Options, tmp_path: Path) -> Case:
    image = oci.make_image(oci.make_store(tmp_path / "store"), [b"layer"])
    return Case(image, parse_reference(f"{tiny.host}/attached:1"), options)


def test_all_is_attached_with_the_push(case: Case) -> None:
    done = case.push("one", "two", "three")
    assert not done.warning
    subject = case.image.root.digest
    assert case.listed() == {
        digests.of_bytes(artifact(subject, text).manifest) for text in ("one", "two", "three")
    }
    assert done.blobs_sent == 2  # those of the image: what is attached is none of its blobs


def test_what_is_attached_is_not_sent_again(case: Case, tiny: TinyRegistry) -> None:
    case.push("one", "two")
    before = len(tiny.requests)
    assert case.push("one", "two").bytes_sent == 0
    assert {method for method, _, _ in tiny.requests[before:]} <= {"GET", "HEAD"}
    case.push("one", "two", "three")
    assert len(case.listed()) == 3


def test_each_question_and_each_list_comes_once(case: Case, tiny: TinyRegistry) -> None:
    case.push(*"abcdef")
    sent = Counter((method, path) for method, path, _ in tiny.requests)
    puts = [path for method, path in sent if method == "PUT" and "/manifests/" in path]
    listing = f"/v2/attached/manifests/{tag_of(case.image.root.digest)}"
    assert sent[("PUT", listing)] in {0, 1}  # no tag where the registry has its own list
    assert len(puts) == 1 + 6 + sent[("PUT", listing)]
    empty = f"/v2/attached/blobs/{digests.of_bytes(EMPTY)}"
    assert sent[("HEAD", empty)] <= 2  # as an image's blob, and as what all six share
    own = f"/v2/attached/blobs/{digests.of_bytes(b'a')}"
    assert sent[("HEAD", own)] == 0


def test_what_lasts_is_asked_for_and_sent_once(case: Case, tiny: TinyRegistry) -> None:
    class Lasting(Attachments):
        def missing(self, listed: Mapping[str, Sequence[Referrer]]) -> list[Made]:
            return [each._replace(lasting=True) for each in super().missing(listed)]

    for text in (b"first", b"second"):
        image = oci.make_image(case.image.store, [text])
        before = len(tiny.requests)
        attached = Lasting(image.root.digest, "said of both")
        assert not push(
            image.root, image.content, case.to, attachments=attached, options=case.options
        ).warning
        posts = [method for method, _, _ in tiny.requests[before:] if method == "POST"]
        assert len(posts) == (4 if text == b"first" else 2)  # then, the image's own two alone
        with case.client() as client:
            assert len(list_referrers(client, image.root.digest)) == 1


def test_a_registry_that_takes_no_attachments_has_the_image(case: Case, tiny: TinyRegistry) -> None:
    def refuse(handler: Handler) -> bool:
        handler.body()
        handler.error(400, "MANIFEST_INVALID")
        return True

    tiny.on("PUT", "/manifests/sha256", refuse, times=9)
    done = case.push("one")
    assert "Nothing was attached" in done.warning
    with case.client() as client:
        assert client.manifest("1").digest == case.image.root.digest


def test_another_writer_of_the_list_loses_nothing(options: Options, tmp_path: Path) -> None:
    image = oci.make_image(oci.make_store(tmp_path / "store"), [b"layer"])
    with TinyRegistry(referrers=False) as tiny:
        case = Case(image, parse_reference(f"{tiny.host}/attached:1"), options)
        case.push("ours")
        subject = image.root.digest
        with case.client() as client:
            known = look_up(client, subject)  # and then somebody else is faster
            attach(client, *artifact(subject, "theirs")[:2])
            mine = Referrer(OCI_MANIFEST, digests.of_bytes(b"mine"), 4)

            def overwrite(handler: Handler) -> bool:
                """The list of the other writer, right after ours."""
                handler.body()
                data = to_json(
                    {
                        "schemaVersion": 2,
                        "mediaType": OCI_INDEX,
                        "manifests": [*known.entries],
                    }
                )
                tiny.manifests[("attached", tag_of(subject))] = (data, OCI_INDEX)
                handler.answer(201)
                return True

            tiny.on("PUT", f"/manifests/{tag_of(subject)}", overwrite)
            enlist(client, subject, [mine])
            found = {each.digest for each in list_referrers(client, subject)}
    assert mine.digest in found
    assert {each.digest for each in known.entries} <= found


def test_what_has_no_subject_is_refused(case: Case) -> None:
    class Wrong(Attachments):
        def missing(self, listed: Mapping[str, Sequence[Referrer]]) -> list[Made]:
            return [artifact("", "of nothing")]

    image = case.image
    with pytest.raises(UsageError, match="no subject"):
        push(
            image.root,
            image.content,
            case.to,
            attachments=Wrong(image.root.digest),
            options=case.options,
        )
