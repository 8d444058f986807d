"""Images to registries and back: Debian's registry, and one that keeps parts of chunks."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from scoring.errors import (
    DigestMismatchError,
    NotFoundError,
    RegistryDeniedError,
    RegistryError,
    UnreachableError,
    UsageError,
)
from serve.distribution.client import RegistryClient
from serve.distribution.content import Content, Descriptor
from serve.distribution.hosts import Hosts
from serve.distribution.pulling import pull
from serve.distribution.pushing import PushResult, plan_push, push
from serve.distribution.reference import Reference, parse_reference
from tests.support import oci
from tests.support.registry import DockerRegistry, running
from tests.support.tiny_registry import Action, Handler, TinyRegistry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    from serve.distribution.options import Options
    from serve.registry.blobs import BlobStore

MEGABYTE = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return oci.make_store(tmp_path / "store")


@pytest.fixture
def image(store: BlobStore) -> oci.SmallImage:
    layers = [os.urandom(5 * MEGABYTE + 7), os.urandom(MEGABYTE), b"small"]
    return oci.make_image(store, layers)


def send(image: oci.SmallImage, to: str, options: Options) -> PushResult:
    return push(image.root, image.content, parse_reference(to), options=options)


def fetch(reference: str, folder: Path, options: Options) -> BlobStore:
    store = oci.make_store(folder)
    pull(parse_reference(reference), store, options=options)
    return store


def whole(image: oci.SmallImage, store: BlobStore) -> bool:
    """Whether a store has every byte of an image."""
    for each in (image.root, *image.layers):
        store.verify(each.digest)
    return True


# -- Debian's registry


def test_there_and_back(
    registry: DockerRegistry, image: oci.SmallImage, options: Options, tmp_path: Path
) -> None:
    done = send(image, f"{registry.host}/there/and-back:1", options)
    assert (done.digest, done.blobs_sent, done.mounted, done.existing) == (
        image.root.digest,
        4,
        0,
        0,
    )
    other = oci.make_store(tmp_path / "other")
    heard: list[int] = []
    found = pull(
        parse_reference(f"{registry.host}/there/and-back:1"),
        other,
        options=options,
        progress=heard.append,
    )
    assert whole(image, other)
    assert (found.named, found.blobs_fetched, found.existing) == (image.root.digest, 4, 0)
    assert sum(heard) == found.bytes_received == done.bytes_sent
    again = pull(parse_reference(f"{registry.host}/there/and-back:1"), other, options=options)
    assert (again.blobs_fetched, again.existing, again.bytes_received) == (0, 4, image.root.size)


def test_nothing_new_is_not_sent(
    registry: DockerRegistry, image: oci.SmallImage, options: Options
) -> None:
    send(image, f"{registry.host}/nothing-new:1", options)
    again = send(image, f"{registry.host}/nothing-new:1", options)
    assert (again.bytes_sent, again.blobs_sent, again.existing) == (0, 0, 4)
    tagged = send(image, f"{registry.host}/nothing-new:2", options)
    assert tagged.bytes_sent == image.root.size


def test_only_the_changed_layer_is_sent(
    registry: DockerRegistry, image: oci.SmallImage, options: Options, store: BlobStore
) -> None:
    send(image, f"{registry.host}/changed:1", options)
    kept = [store.read_bytes(each.digest) for each in image.layers[:-1]]
    model = os.urandom(300_000)
    changed = oci.make_image(store, [*kept, model])
    done = send(changed, f"{registry.host}/changed:1", options)
    assert done.blobs_sent == 2  # and the configuration
    assert len(model) <= done.bytes_sent <= len(model) + 20_000


def test_layers_are_mounted_from_where_they_were_sent_before(
    registry: DockerRegistry, image: oci.SmallImage, options: Options
) -> None:
    send(image, f"{registry.host}/mount/one:1", options)
    done = send(image, f"{registry.host}/mount/two:1", options)
    assert (done.mounted, done.blobs_sent, done.bytes_sent) == (4, 0, image.root.size)


class NeverOpened:
    """Content whose blobs nobody may ask for: they are elsewhere."""

    def __init__(self, content: Content, origin: Reference, hidden: set[str]) -> None:
        self._content = content
        self._origin = origin
        self._hidden = hidden

    def open(self, descriptor: Descriptor) -> BinaryIO:
        assert descriptor.digest not in self._hidden
        return self._content.open(descriptor)

    def origins(self, digest: str) -> Sequence[Reference]:
        return (self._origin,) if digest in self._hidden else ()


def test_layers_of_a_base_are_mounted_and_not_read(
    registry: DockerRegistry, image: oci.SmallImage, options: Options
) -> None:
    send(image, f"{registry.host}/bases/python:3", options)
    origin = parse_reference(f"{registry.host}/bases/python:3")
    content = NeverOpened(image.content, origin, {each.digest for each in image.layers})
    fresh = msgspec.structs.replace(options, memory=type(options.memory)(None))
    to = parse_reference(f"{registry.host}/on/base:1")
    done = push(image.root, content, to, options=fresh)
    assert (done.mounted, done.blobs_sent) == (3, 1)


def test_a_plan_changes_nothing(
    registry: DockerRegistry, image: oci.SmallImage, options: Options
) -> None:
    to = parse_reference(f"{registry.host}/planned:1")
    plan = plan_push(image.root, image.content, to, options=options)
    assert {each.digest for each in plan.missing} > {each.digest for each in image.layers}
    assert plan.bytes_missing == sum(each.size for each in plan.missing)
    with RegistryClient(to, hosts=options.hosts, limits=options.limits) as client:
        assert client.find_manifest("1") is None
        assert not client.has_blob(image.layers[0])


def test_several_platforms(
    registry: DockerRegistry, store: BlobStore, options: Options, tmp_path: Path
) -> None:
    images = {
        "linux/amd64": oci.make_image(store, [b"both", b"amd64"]),
        "linux/arm64": oci.make_image(store, [b"both", b"arm64"], architecture="arm64"),
    }
    index = oci.make_index(store, images)
    done = send(index, f"{registry.host}/several:1", options)
    assert (done.digest, done.blobs_sent) == (index.root.digest, 5)
    everything = fetch(f"{registry.host}/several:1", tmp_path / "all", options)
    assert whole(index, everything)
    one = oci.make_store(tmp_path / "one")
    reference = parse_reference(f"{registry.host}/several:1")
    found = pull(reference, one, platform="linux/arm64", options=options)
    assert found.blobs_fetched == 3
    assert one.has(images["linux/arm64"].root.digest)
    assert not one.has(images["linux/amd64"].root.digest)
    with pytest.raises(NotFoundError, match="s390x") as caught:
        pull(reference, one, platform="linux/s390x", options=options)
    assert "linux/amd64, linux/arm64" in caught.value.hint


def test_other_clients_read_what_was_pushed(
    registry: DockerRegistry, image: oci.SmallImage, options: Options, tmp_path: Path
) -> None:
    import shutil

    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    image = oci.make_image(image.store, [gzip.compress(b"one"), gzip.compress(b"two")])
    send(image, f"{registry.host}/skopeo:1", options)
    there = f"docker://{registry.host}/skopeo:1"
    read = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", there], capture_output=True, check=True
    )
    document = json.loads(read.stdout)
    assert document["Digest"] == image.root.digest
    assert document["Layers"] == [each.digest for each in image.layers]
    copy = f"docker://{registry.host}/skopeo/copy:2"
    tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    subprocess.run(["skopeo", "copy", *tls, there, copy], capture_output=True, check=True)
    back = fetch(f"{registry.host}/skopeo/copy:2", tmp_path / "back", options)
    assert whole(image, back)


def test_a_registry_with_passwords(image: oci.SmallImage, options: Options, tmp_path: Path) -> None:
    import base64

    users = {"ada": "l0ve:läce"}
    with running(tmp_path / "registry", users=users) as registry:
        with pytest.raises(RegistryDeniedError, match="none for it"):
            send(image, f"{registry.host}/private:1", options)
        text = base64.b64encode(b"ada:" + users["ada"].encode()).decode()
        folder = tmp_path / "home" / ".docker"
        folder.mkdir(parents=True)
        logins = {"auths": {registry.host: {"auth": text}}}
        (folder / "config.json").write_text(json.dumps(logins))
        send(image, f"{registry.host}/private:1", options)
        assert whole(image, fetch(f"{registry.host}/private:1", tmp_path / "back", options))


def test_a_registry_with_an_authority_of_its_own(
    image: oci.SmallImage, options: Options, tmp_path: Path
) -> None:
    from tests.support import certificates

    authority = certificates.Authority()
    made = authority.issue(tmp_path, "server")
    with running(tmp_path / "registry", certificate=made) as registry:
        with pytest.raises(UnreachableError, match="not believed") as caught:
            send(image, f"{registry.host}/tls:1", options)
        assert "certs.d" in caught.value.hint
        folder = tmp_path / "root" / "etc" / "docker" / "certs.d" / registry.host
        folder.mkdir(parents=True)
        authority.write(folder / "ca.crt")
        send(image, f"{registry.host}/tls:1", options)
        assert whole(image, fetch(f"{registry.host}/tls:1", tmp_path / "back", options))


def test_a_mirror_is_asked_first_and_need_not_answer(
    registry: DockerRegistry, image: oci.SmallImage, options: Options, tmp_path: Path
) -> None:
    send(image, f"{registry.host}/mirrored/iris:1", options)
    conf = tmp_path / "root" / "etc" / "containers" / "registries.conf"
    conf.parent.mkdir(parents=True)
    mirrors = "".join(
        f'[[registry.mirror]]\nlocation = "{place}"\n'
        for place in ("127.0.0.1:1/gone", f"{registry.host}/empty", f"{registry.host}/mirrored")
    )
    conf.write_text(
        f'[[registry]]\nprefix = "far.invalid/team"\nlocation = "far.invalid/team"\n{mirrors}'
    )
    hosts = Hosts({"HOME": str(tmp_path / "home")}, root=tmp_path / "root")
    there = msgspec.structs.replace(options, hosts=hosts)
    assert whole(image, fetch("far.invalid/team/iris:1", tmp_path / "back", there))
    with pytest.raises(UnreachableError, match=r"far\.invalid"):
        fetch("far.invalid/team/other:1", tmp_path / "none", there)


# -- uploads that break


def breaks_after(count: int) -> Action:
    """An action that takes the beginning of a chunk, keeps it, and breaks off."""

    def action(request: Handler) -> bool:
        registry = request.server.owner
        session = request.path.partition("?")[0].rpartition("/")[2]
        registry.uploads[session] += request.body(count)
        request.drop()
        return True

    return action


def test_an_upload_goes_on_in_the_middle_of_a_chunk(
    tiny: TinyRegistry, image: oci.SmallImage, options: Options
) -> None:
    tiny.on("PATCH", "", breaks_after(700_000), times=2)
    done = send(image, f"{tiny.host}/a/b:1", options)
    assert tiny.blobs[image.layers[0].digest] == image.store.read_bytes(image.layers[0].digest)
    sizes = sum(each.size for each in image.layers)
    assert done.bytes_sent < sizes + 2 * MEGABYTE
    starts = [h["Content-Range"].partition("-")[0] for _, h in tiny.asked("PATCH")]
    assert starts[:3] == ["0", "700000", "1400000"]


def test_an_upload_goes_on_in_the_next_process(
    tiny: TinyRegistry, image: oci.SmallImage, options: Options
) -> None:
    tiny.on("PATCH", "", lambda request: False, times=2)  # two chunks pass
    tiny.on("PATCH", "", says_403, times=1)
    with pytest.raises(RegistryDeniedError):
        send(image, f"{tiny.host}/a/b:1", options)
    kept = [part for part in tiny.uploads.values() if len(part) == 2 * MEGABYTE]
    assert kept
    before = len(tiny.asked("PATCH"))
    again = send(image, f"{tiny.host}/a/b:1", options)
    starts = [h["Content-Range"].partition("-")[0] for _, h in tiny.asked("PATCH")[before:]]
    assert starts[0] == str(2 * MEGABYTE)
    assert again.bytes_sent < 4 * MEGABYTE + 20_000


def says_403(request: Handler) -> bool:
    request.body()
    request.error(403, "DENIED")
    return True


def test_an_upload_that_the_registry_has_forgotten_begins_anew(
    tiny: TinyRegistry, image: oci.SmallImage, options: Options
) -> None:
    def forget(request: Handler) -> bool:
        tiny.uploads.clear()
        return False

    tiny.on("PATCH", "", lambda request: False, times=2)
    tiny.on("PATCH", "", forget)
    send(image, f"{tiny.host}/a/b:1", options)
    assert tiny.blobs[image.layers[0].digest]


def test_an_answer_that_was_lost_is_no_second_upload(
    tiny: TinyRegistry, image: oci.SmallImage, options: Options
) -> None:
    def complete_silently(request: Handler) -> bool:
        registry = request.server.owner
        session, _, query = request.path.partition("?")
        data = bytes(registry.uploads.pop(session.rpartition("/")[2])) + request.body()
        digest = query.rpartition("digest=")[2].replace("%3A", ":")
        registry._keep("a/b", digest, data)
        request.drop()
        return True

    tiny.on("PUT", "/uploads/", complete_silently)
    done = send(image, f"{tiny.host}/a/b:1", options)
    sizes = sum(map(len, tiny.blobs.values()))
    assert done.bytes_sent == sizes + image.root.size


def test_a_damaged_blob_is_never_complete(
    tiny: TinyRegistry, image: oci.SmallImage, options: Options
) -> None:
    path = image.store.path(image.layers[0].digest)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(DigestMismatchError, match="damaged"):
        send(image, f"{tiny.host}/a/b:1", options)
    assert image.layers[0].digest not in tiny.blobs
    assert not tiny.manifests
    with path.open("ab") as file:
        file.truncate(MEGABYTE)
    with pytest.raises(DigestMismatchError, match="ends after"):
        send(image, f"{tiny.host}/a/b:1", options)


def test_a_registry_that_refuses_leaves_no_tag(
    tiny: TinyRegistry, image: oci.SmallImage, options: Options
) -> None:
    tiny.on("PUT", "/uploads/", says_403)
    with pytest.raises(RegistryDeniedError, match="refuses"):
        send(image, f"{tiny.host}/a/b:1", options)
    assert not tiny.manifests


@pytest.mark.parametrize("location", ["", "ftp://x/y", "http://[x"])
def test_an_upload_without_an_address(
    tiny: TinyRegistry, image: oci.SmallImage, options: Options, location: str
) -> None:
    def answer(request: Handler) -> bool:
        request.body()
        request.answer(202, b"", {"location": location} if location else {})
        return True

    tiny.on("POST", "", answer, times=99)
    with pytest.raises(RegistryError, match="no address"):
        send(image, f"{tiny.host}/a/b:1", options)


def test_a_push_to_a_digest_of_something_else(
    tiny: TinyRegistry, image: oci.SmallImage, options: Options
) -> None:
    with pytest.raises(UsageError, match="another image"):
        send(image, f"{tiny.host}/a@sha256:{'b' * 64}", options)
    assert send(image, f"{tiny.host}/a@{image.root.digest}", options).digest == image.root.digest


def test_uploads_run_side_by_side(tiny: TinyRegistry, store: BlobStore, options: Options) -> None:
    image = oci.make_image(store, [os.urandom(1000) for _ in range(4)])
    meeting = threading.Barrier(3, timeout=10)

    def meet(request: Handler) -> bool:
        meeting.wait()
        return False

    tiny.on("PUT", "/uploads/", meet, times=3)
    send(image, f"{tiny.host}/a/b:1", options)
    assert not meeting.broken
