"""Whatever the bytes of a base, reading it ends in a base or in an error of ours."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring.archive import Limits
from scoring.errors import FieldpostError
from serve.packaging.images.bases import open_local
from serve.packaging.images.basestore import BaseStore
from serve.packaging.images.compose import compose
from serve.packaging.images.rootfs import RootArchive
from serve.registry.blobs import BlobStore
from tests.support.smallbases import archive, entry, folder, link, system, write_layout

LONG = os.environ.get("FIELDPOST_TEST_LONG") == "1"
SETTINGS = settings(max_examples=5_000 if LONG else 80, deadline=None)
LIMITS = Limits(max_bytes=1 << 24, max_entries=1000)

PLAIN = archive(system())
SEEDS = [
    PLAIN,
    gzip.compress(PLAIN),
    archive([entry("x" * 300, b"long"), link("a", "b" * 200), folder("c")]),
    archive([entry("p", b"", type=tarfile.CHRTYPE)]),
]


def mutated(data: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(changed)] = value
    return bytes(changed[: len(changed) - cut % len(changed)])


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=12)
CUT = st.one_of(st.just(0), st.integers(0, 1 << 14))


def read(data: bytes) -> None:
    found = RootArchive(io.BufferedReader(io.BytesIO(data)), "base.tar", LIMITS)
    with contextlib.suppress(FieldpostError):
        passed = b"".join(found.pieces())
        with tarfile.open(fileobj=io.BytesIO(passed)) as tar:  # what passes is an archive
            names = tar.getnames()
        assert not any(".." in name.split("/") or name.startswith("/") for name in names)


@SETTINGS
@given(st.sampled_from(SEEDS), CHANGES, CUT)
@example(PLAIN, [(156, ord("x"))], 0)
@example(PLAIN, [(124, 0x80)], 0)
def test_changed_root_filesystems(seed: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    read(mutated(seed, changes, cut))


@SETTINGS
@given(st.binary(max_size=2000))
def test_anything(data: bytes) -> None:
    read(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_FIELDS = [
    "mediaType",
    "digest",
    "size",
    "layers",
    "config",
    "manifests",
    "rootfs",
    "os",
    "history",
]


def tiny_package(store: BlobStore) -> str:
    """A package without layers."""
    config = store.put_bytes(
        b'{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]},"history":[],'
        b'"rootfs":{"type":"layers","diff_ids":[]}}'
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest,
            "size": config.size,
        },
        "layers": [],
    }
    return store.put_bytes(json.dumps(manifest).encode()).digest


@SETTINGS
@given(st.sampled_from(["config", "manifest", "index"]), st.sampled_from(_FIELDS), _JSON)
@example("config", "config", {"Env": [5], "Labels": ["a"]})
@example("config", "config", {"Env": "A", "Labels": {"a": None}})
@example("config", "history", [{"empty_layer": "no"}, 3])
def test_changed_documents_of_a_layout(kind: str, field: str, value: object) -> None:
    """Any field of any document, replaced by anything, with a digest that fits."""

    def change(of: str, document: dict[str, Any]) -> dict[str, Any]:
        return document | {field: value} if of == kind else document

    with TemporaryDirectory() as place:
        write_layout(Path(place) / "lay", tag="v1", change=change)
        store = BlobStore(Path(place) / "store")
        store.create()
        package = tiny_package(store)
        with contextlib.suppress(FieldpostError):
            text = f"oci:{place}/lay"
            base = open_local(text, "linux/amd64", BaseStore(Path(place) / "bases"))
            compose(package, base, store)
