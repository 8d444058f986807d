"""Whatever a registry answers, a transfer ends with one of our errors, and soon."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoring.errors import FieldpostError
from serve.distribution.client import PUSH, RegistryClient
from serve.distribution.content import Descriptor
from serve.distribution.credentials import Logins
from serve.distribution.hosts import Hosts
from serve.distribution.limits import Limits
from serve.distribution.options import Options
from serve.distribution.pulling import pull
from serve.distribution.pushing import push
from serve.distribution.reference import parse_reference
from serve.distribution.referrers import list_referrers
from tests.support import oci
from tests.support.tiny_registry import Handler, TinyRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = os.environ.get("FIELDPOST_TEST_LONG") == "1"
EXAMPLES = 2000 if LONG else 60
D = "sha256:" + "a" * 64

LIMITS = Limits(
    connect_s=1, read_s=0.2, attempts=2, patience_s=0.3, first_patience_s=0.1, chunk_bytes=1000
)
texts = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.sampled_from(
        ["0-0", "0-99999999", "bytes 3-5/6", "bytes=0-1", "-1", "9" * 30, D, "sha256:", "/v2/",
         "http://127.0.0.1:1/x", "http://[", "//x", "https://127.0.0.1:1", 'Basic realm="x"',
         'Bearer realm="http://127.0.0.1:1/t",service="s"', "Bearer", "text/html",
         "application/vnd.oci.image.index.v1+json", "gzip", "chunked"]
    ),
)  # fmt: skip
names = st.sampled_from(
    ["location", "range", "content-range", "content-type", "docker-content-digest", "link",
     "www-authenticate", "retry-after", "oci-chunk-min-length", "oci-subject", "content-encoding"]
)  # fmt: skip
json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.just(D)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size",
                 "platform", "annotations", "subject", "token", "expires_in", "errors", "tags",
                 "code", "message", "os", "architecture"]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
bodies = st.one_of(st.binary(max_size=200), json_like.map(lambda value: json.dumps(value).encode()))
statuses = st.sampled_from(
    [200, 201, 202, 204, 206, 301, 302, 307, 400, 401, 403, 404, 405, 409, 413, 416, 429, 500, 503]
)
answers = st.tuples(statuses, st.dictionaries(names, texts, max_size=4), bodies)


@pytest.fixture(scope="module")
def tiny() -> Iterator[TinyRegistry]:
    with TinyRegistry() as registry:
        yield registry


@pytest.fixture(scope="module")
def image() -> Iterator[oci.SmallImage]:
    with tempfile.TemporaryDirectory() as folder:
        yield oci.make_image(oci.make_store(Path(folder) / "store"), [os.urandom(2500), b"x"])


def options(folder: str) -> Options:
    environ = {"HOME": folder}
    return Options(hosts=Hosts(environ, root=Path(folder)), logins=Logins(environ), limits=LIMITS)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(answers, min_size=1, max_size=6), st.integers(0, 4))
def test_any_answers_end_in_an_error_of_ours(
    tiny: TinyRegistry,
    image: oci.SmallImage,
    given_answers: list[tuple[int, dict[str, str], bytes]],
    honest: int,
) -> None:
    """After some honest answers, each of the next is one of these."""
    tiny._rules.clear()
    tiny.manifests.clear()
    tiny.repositories.clear()
    left = [honest]
    rest = iter(given_answers * 3)

    def action(request: Handler) -> bool:
        if left[0]:
            left[0] -= 1
            return False
        found = next(rest, None)
        if found is None:
            return False
        request.body()
        request.answer(found[0], found[2], found[1])
        return True

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH"):
        tiny.on(method, "", action, times=10_000)
    to = parse_reference(f"{tiny.host}/a/b:1")
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(FieldpostError):
        push(image.root, image.content, to, options=options(folder))
    with tempfile.TemporaryDirectory() as folder:
        store = oci.make_store(Path(folder) / "store")
        with contextlib.suppress(FieldpostError):
            pull(to, store, options=options(folder))
        for digest in store.digests():
            store.verify(digest)
    client = RegistryClient(to, actions=PUSH, hosts=options("/nonexistent").hosts, limits=LIMITS)
    with contextlib.suppress(FieldpostError), client:
        list_referrers(client, D)
        client.tags()
        list(client.blob(Descriptor("", D, 100)))
