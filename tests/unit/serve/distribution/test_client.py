"""One repository, as registries answer for it: well, badly, and not at all."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from scoring import digest as digests
from scoring.errors import (
    DigestMismatchError,
    FieldpostError,
    NotFoundError,
    RegistryBusyError,
    RegistryDeniedError,
    RegistryError,
    UnreachableError,
)
from serve.distribution.client import DELETE, PULL, PUSH, RegistryClient
from serve.distribution.content import Descriptor
from serve.distribution.documents import OCI_MANIFEST
from serve.distribution.pushing import push
from serve.distribution.reference import parse_reference
from tests.support.oci import SmallImage, make_image, make_store
from tests.support.tiny_registry import Action, Handler, TinyRegistry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serve.distribution.options import Options

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "x", "digest": "sha256:" + "a" * 64, "size": 2},
        "layers": [],
    }
).encode()
OTHER = "sha256:" + "b" * 64


@pytest.fixture
def image(tmp_path: Path) -> SmallImage:
    return make_image(make_store(tmp_path / "store"), [os.urandom(3 << 20), b"small"])


@pytest.fixture
def client(tiny: TinyRegistry, options: Options) -> RegistryClient:
    return client_of(tiny.host, options)


def client_of(host: str, options: Options, actions: str = PULL) -> RegistryClient:
    return RegistryClient(
        parse_reference(f"{host}/a/b"),
        actions=actions,
        hosts=options.hosts,
        logins=options.logins,
        limits=options.limits,
    )


def says(status: int, body: bytes = b"", **headers: str) -> Action:
    """An action that answers so."""

    def answer(request: Handler) -> bool:
        request.body()
        request.answer(status, body, {k.replace("_", "-"): v for k, v in headers.items()})
        return True

    return answer


def drops(request: Handler) -> bool:
    """An action that breaks the connection."""
    request.drop()
    return True


def put(tiny: TinyRegistry, image: SmallImage, options: Options, tag: str = "1") -> None:
    to = parse_reference(f"{tiny.host}/a/b:{tag}")
    push(image.root, image.content, to, options=options)


def test_reads_what_was_put(
    tiny: TinyRegistry, image: SmallImage, client: RegistryClient, options: Options
) -> None:
    put(tiny, image, options)
    assert client.find_manifest("1") == image.root
    document = client.manifest("1")
    assert document.digest == image.root.digest
    assert client.manifest(image.root.digest) == document
    assert [each.digest for each in document.layers] == [each.digest for each in image.layers]
    assert client.has_blob(image.layers[0])
    assert digests.of_chunks(client.blob(image.layers[0])) == image.layers[0].digest
    assert client.read_blob(image.layers[1]) == b"small"
    assert client.tags() == ["1"]


def test_what_is_not_there(client: RegistryClient) -> None:
    assert client.find_manifest("none") is None
    assert not client.has_blob(Descriptor("", OTHER, 3))
    with pytest.raises(NotFoundError, match=r"has no manifest a/b:none: MANIFEST_UNKNOWN"):
        client.manifest("none")
    with pytest.raises(NotFoundError, match=OTHER):
        list(client.blob(Descriptor("", OTHER, 3)))


def test_a_blob_of_another_size_is_not_the_blob(
    tiny: TinyRegistry, image: SmallImage, client: RegistryClient, options: Options
) -> None:
    put(tiny, image, options)
    layer = image.layers[0]
    assert not client.has_blob(Descriptor("", layer.digest, layer.size + 1))
    with pytest.raises(DigestMismatchError):
        list(client.blob(Descriptor("", layer.digest, layer.size + 1)))
    with pytest.raises(DigestMismatchError, match=str(layer.size - 1)):
        list(client.blob(Descriptor("", layer.digest, layer.size - 1)))


ANSWERS: list[tuple[Action, type[FieldpostError], str]] = [
    (
        says(403, b'{"errors":[{"code":"DENIED","message":"not yours"}]}'),
        RegistryDeniedError,
        "not yours",
    ),
    (says(401), RegistryDeniedError, "way to log in"),
    (says(401, www_authenticate='Basic realm="x"'), RegistryDeniedError, "none for it"),
    (says(404, b"<html>"), NotFoundError, "has no manifest"),
    (says(429), RegistryBusyError, "no more requests"),
    (says(500), RegistryBusyError, "fails with 500"),
    (says(503, b"<html>busy"), RegistryBusyError, "fails with 503"),
    (says(400, b'{"errors":[{"code":"X","message":"odd\\u001b[31m"}]}'), RegistryError, "X: odd"),
    (says(405), RegistryError, "does not allow"),
    (says(418), RegistryError, "418"),
    (says(204), RegistryError, "204"),
    (says(302, location="http://[x"), RegistryError, "followed"),
    (says(302), RegistryError, "followed"),
    (says(301, location="file:///etc/passwd"), RegistryError, "followed"),
    (says(307, location="/v2/a/b/manifests/1"), RegistryError, "without end"),
    (says(200, b"<!DOCTYPE html><html>", content_type="text/html"), RegistryError, "web page"),
    (says(200, b""), RegistryError, "no such document"),
    (says(200, os.urandom(100)), RegistryError, "no such document"),
    (says(200, b"[1, 2]"), RegistryError, "no such document"),
    (says(200, b'{"schemaVersion": 1}'), RegistryError, "schema version"),
    (says(200, b'{"schemaVersion": 2}'), RegistryError, "no configuration"),
    (says(200, b'{"schemaVersion": 2, "config": 3}'), RegistryError, "no manifest that"),
    (says(200, b"{" * 100_000), RegistryError, "no manifest that"),
    (says(200, b" " * (5 << 20)), RegistryError, "more than"),
    (says(200, MANIFEST.replace(b"a" * 64, b"A" * 64)), RegistryError, "not a digest"),
    (says(200, MANIFEST.replace(b'"size": 2', b'"size": -2')), RegistryError, "-2 bytes"),
    (says(200, MANIFEST, docker_content_digest=OTHER), DigestMismatchError, "other bytes"),
    (drops, UnreachableError, "broke off"),
    (
        says(200, MANIFEST, content_length=str(len(MANIFEST) + 5)),
        UnreachableError,
        "takes too long",
    ),
]


@pytest.mark.parametrize(("action", "kind", "words"), ANSWERS, ids=range(len(ANSWERS)))
def test_each_bad_answer_has_its_message(
    tiny: TinyRegistry, options: Options, action: Action, kind: type[FieldpostError], words: str
) -> None:
    limits = msgspec.structs.replace(options.limits, attempts=2, read_s=0.3)
    quick = msgspec.structs.replace(options, limits=limits)
    tiny.on("GET", "/manifests/", action, times=100)
    with pytest.raises(kind, match=words) as caught, client_of(tiny.host, quick) as client:
        client.manifest("1")
    assert type(caught.value) is kind
    assert caught.value.hint
    assert tiny.host in caught.value.message or "manifest" in caught.value.message
    assert caught.value.message.isprintable()


def test_a_registry_that_never_answers_is_waited_for_once(
    options: Options, image: SmallImage
) -> None:
    """Not once for each of the questions that are asked side by side."""
    limits = msgspec.structs.replace(options.limits, connect_s=0.5, read_s=0.5, attempts=1)
    quick = msgspec.structs.replace(options, limits=limits)
    image = make_image(image.store, [b"%d" % number for number in range(30)])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = parse_reference(f"127.0.0.1:{silent.getsockname()[1]}/a/b:1")
        with pytest.raises(UnreachableError, match="takes too long"):
            push(image.root, image.content, to, options=quick)
        silent.setblocking(False)
        tried = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                tried += 1
    assert tried == 2  # over TLS and without; there are more questions than threads


@pytest.mark.parametrize(
    "answer",
    [
        says(401, www_authenticate='Bearer realm="http://127.0.0.1:1/token",service="x"'),
        says(307, location="http://127.0.0.1:1/storage"),
    ],
    ids=["token service", "storage"],
)
def test_whoever_does_not_answer_is_named(
    tiny: TinyRegistry, options: Options, answer: Action
) -> None:
    tiny.on("GET", "/manifests/", answer, times=100)
    silent = rf"127\.0\.0\.1:1, to which the registry {tiny.host} sends, does not answer"
    with client_of(tiny.host, options) as client, pytest.raises(UnreachableError, match=silent):
        client.manifest("1")


def test_a_manifest_that_is_not_the_one_asked_for(
    tiny: TinyRegistry, client: RegistryClient
) -> None:
    tiny.on("GET", "/manifests/", says(200, MANIFEST))
    with pytest.raises(DigestMismatchError, match=OTHER):
        client.manifest(OTHER)


def test_passing_failures_pass(
    tiny: TinyRegistry, image: SmallImage, client: RegistryClient, options: Options
) -> None:
    put(tiny, image, options)
    tiny.on("GET", "/manifests/", drops)
    tiny.on("GET", "/manifests/", says(503))
    assert client.manifest("1").digest == image.root.digest


def test_waits_as_long_as_the_registry_asks(
    tiny: TinyRegistry, image: SmallImage, client: RegistryClient, options: Options
) -> None:
    put(tiny, image, options)
    tiny.on("GET", "/manifests/", says(429, retry_after="1"))
    start = time.monotonic()
    client.manifest("1")
    assert time.monotonic() - start > 0.9
    tiny.on("GET", "/manifests/", says(429, retry_after="3600"), times=9)
    start = time.monotonic()
    with pytest.raises(RegistryBusyError):
        client.manifest("1")
    assert time.monotonic() - start < 2  # longer than our patience: told at once


def test_a_registry_that_hangs(options: Options) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(UnreachableError, match="too long"), client_of(host, options) as client:
            client.manifest("1")
        assert time.monotonic() - start < 15


def test_a_registry_that_drips(tiny: TinyRegistry, options: Options) -> None:
    import msgspec

    over = threading.Event()

    def drip(request: Handler) -> bool:
        request.send_response(200)
        request.send_header("content-length", "1000000")
        request.end_headers()
        while not over.wait(0.05):
            request.wfile.write(b"x")
        return True

    limits = msgspec.structs.replace(options.limits, slow_s=0.5, attempts=2)
    tiny.on("GET", "/blobs/", drip, times=9)
    slow = msgspec.structs.replace(options, limits=limits)
    with pytest.raises(UnreachableError, match="bytes came"), client_of(tiny.host, slow) as client:
        client.read_blob(Descriptor("", OTHER, 1_000_000))
    over.set()


@pytest.mark.parametrize(
    ("host", "words"),
    [("127.0.0.1:1", "nothing listens"), ("no-such-registry.invalid", "name is not known")],
)
def test_nothing_there(options: Options, host: str, words: str) -> None:
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=words), client_of(host, options) as client:
        client.manifest("1")
    assert time.monotonic() - start < 3


def test_a_download_that_breaks_goes_on_where_it_was(
    tiny: TinyRegistry, image: SmallImage, client: RegistryClient, options: Options
) -> None:
    put(tiny, image, options)
    layer = image.layers[0]
    tiny.on("GET", "/blobs/", sends_a_part(tiny, 1 << 20), times=2)
    assert digests.of_chunks(client.blob(layer)) == layer.digest
    ranges = [headers.get("Range") for _, headers in tiny.asked("GET", layer.digest)]
    assert ranges == [None, f"bytes={1 << 20}-", f"bytes={2 << 20}-"]


def test_a_registry_without_ranges(
    tiny: TinyRegistry, image: SmallImage, client: RegistryClient, options: Options
) -> None:
    put(tiny, image, options)
    layer = image.layers[0]
    tiny.on("GET", "/blobs/", sends_a_part(tiny, 1 << 20))
    tiny.on("GET", "/blobs/", says(200, tiny.blobs[layer.digest]))
    assert digests.of_chunks(client.blob(layer)) == layer.digest


def sends_a_part(tiny: TinyRegistry, count: int) -> Action:
    """An action that breaks off in the middle of a blob."""

    def answer(request: Handler) -> bool:
        data = tiny.blobs[request.path.rpartition("/")[2]]
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        request.send_response(206 if start else 200)
        request.send_header("content-length", str(len(data) - start))
        request.send_header("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        request.wfile.write(data[start : start + count])
        request.wfile.flush()
        request.drop()
        return True

    return answer


@pytest.mark.parametrize(
    "make",
    [
        lambda data: says(200, data[:-1] + bytes([data[-1] ^ 1])),
        lambda data: says(200, data[:-1]),
        lambda data: says(200, data + b"x"),
        lambda data: says(200, b""),
        lambda data: says(206, data[5:], content_range="bytes 5-9/10"),
    ],
)
def test_a_blob_that_is_another(
    tiny: TinyRegistry,
    image: SmallImage,
    client: RegistryClient,
    options: Options,
    make: Callable[[bytes], Action],
) -> None:
    put(tiny, image, options)
    layer = image.layers[0]
    tiny.on("GET", "/blobs/", make(tiny.blobs[layer.digest]), times=9)
    with pytest.raises((DigestMismatchError, RegistryError)):
        list(client.blob(layer))


def test_an_endless_blob_is_cut_off(tiny: TinyRegistry, client: RegistryClient) -> None:
    def endless(request: Handler) -> bool:
        request.send_response(200)
        request.send_header("connection", "close")
        request.end_headers()
        request.close_connection = True
        for _ in range(10_000):
            request.wfile.write(bytes(1 << 20))
        return True

    tiny.on("GET", "/blobs/", endless)
    with pytest.raises(DigestMismatchError, match="more"):
        for _ in client.blob(Descriptor("", OTHER, 3 << 20)):
            pass


# -- who sees the login


def login(tmp_path: Path, host: str, user: str, password: str) -> None:
    import base64

    folder = tmp_path / "home" / ".docker"
    folder.mkdir(parents=True, exist_ok=True)
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": text}}}))


def test_tokens_for_each_thing_that_is_done(
    tmp_path: Path, image: SmallImage, options: Options
) -> None:
    with TinyRegistry(users={"ada": "pw"}) as tiny:
        login(tmp_path, tiny.host, "ada", "pw")
        put(tiny, image, options)
        with client_of(tiny.host, options) as client:
            assert client.manifest("1").digest == image.root.digest
        assert len(tiny.asked("GET", "/token")) == 2
        assert not [h for _, h in tiny.asked("PUT") if "Basic" in h.get("Authorization", "")]


def test_a_token_that_ends_in_the_middle(
    tmp_path: Path, image: SmallImage, options: Options
) -> None:
    with TinyRegistry(users={"ada": "pw"}) as tiny:
        login(tmp_path, tiny.host, "ada", "pw")

        def forget(request: Handler) -> bool:
            tiny.tokens.clear()
            return False

        tiny.on("PATCH", "", forget)
        tiny.on("PUT", "/manifests/", forget)
        put(tiny, image, options)
        assert tiny.blobs[image.layers[0].digest]


def test_a_wrong_password(tmp_path: Path, image: SmallImage, options: Options) -> None:
    with TinyRegistry(users={"ada": "pw"}) as tiny:
        login(tmp_path, tiny.host, "ada", "wr0ng")
        with pytest.raises(RegistryDeniedError, match="login of ada") as caught:
            put(tiny, image, options)
        assert "wr0ng" not in str(caught.value.to_dict())


def test_a_redirect_to_storage_carries_no_login(
    tmp_path: Path, image: SmallImage, options: Options
) -> None:
    with TinyRegistry(users={"ada": "pw"}) as tiny, TinyRegistry() as storage:
        login(tmp_path, tiny.host, "ada", "pw")
        put(tiny, image, options)
        layer = image.layers[0]
        storage.on("GET", "/signed", says(200, tiny.blobs[layer.digest]))
        target = f"http://localhost:{storage.host.rpartition(':')[2]}/signed?X-Key=1"

        def redirect(request: Handler) -> bool:
            assert request.headers["authorization"].startswith("Bearer ")
            return says(307, location=target)(request)

        with client_of(tiny.host, options) as client:
            client.manifest("1")
            tiny.on("GET", "/blobs/", redirect)
            assert digests.of_chunks(client.blob(layer)) == layer.digest
        assert [h for _, h in storage.asked("GET") if "Authorization" in h] == []


def test_a_redirect_to_another_port_carries_no_login(
    tmp_path: Path, image: SmallImage, options: Options
) -> None:
    with TinyRegistry(users={"ada": "pw"}) as tiny, TinyRegistry(users={"ada": "pw"}) as other:
        login(tmp_path, tiny.host, "ada", "pw")
        put(tiny, image, options)
        tiny.on("GET", "/manifests/", says(302, location=f"{other.url}/v2/a/b/manifests/1"), 9)
        with pytest.raises(RegistryError), client_of(tiny.host, options) as client:
            client.manifest("1")
        assert other.asked("GET")
        assert [h for _, h in other.asked("GET") if "Authorization" in h] == []


def test_deleting(tiny: TinyRegistry, image: SmallImage, options: Options) -> None:
    put(tiny, image, options)
    with client_of(tiny.host, options, DELETE) as client:
        client.delete_manifest("1")
        assert client.find_manifest("1") is None
        tiny.on("DELETE", "", says(405, b'{"errors":[{"code":"UNSUPPORTED"}]}'))
        with pytest.raises(RegistryError, match="does not allow"):
            client.delete_manifest(image.root.digest)


def test_pages_of_tags(tiny: TinyRegistry, client: RegistryClient) -> None:
    first = says(200, b'{"tags":["a","b"]}', link='</v2/a/b/tags/list?last=b&n=2>; rel="next"')
    tiny.on("GET", "tags/list", first)
    tiny.on("GET", "last=b", says(200, b'{"tags":["c"]}'))
    assert client.tags() == ["a", "b", "c"]
    tiny.on("GET", "tags/list", says(200, b"<html>"))
    with pytest.raises(RegistryError, match="web page"):
        client.tags()


def test_a_manifest_is_stored_as_it_is(
    tiny: TinyRegistry, image: SmallImage, options: Options
) -> None:
    put(tiny, image, options)
    data = image.store.read_bytes(image.root.digest)
    with client_of(tiny.host, options, PUSH) as client:
        assert client.put_manifest(data, OCI_MANIFEST, "2") == image.root.digest
        tiny.on("PUT", "", says(201, docker_content_digest=OTHER))
        with pytest.raises(RegistryError, match="stores sha256:bbb"):
            client.put_manifest(data, OCI_MANIFEST, "3")


def test_no_secret_in_any_repr(tmp_path: Path, options: Options) -> None:
    login(tmp_path, "r.io", "ada", "s3cret")
    found: Any = options.logins.find(parse_reference("r.io/a"))
    assert found.password == "s3cret"
    assert "s3cret" not in f"{found!r}{options!r}"
