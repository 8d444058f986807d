"""Packages in a small source of blobs, which can be made to misbehave, and fetching from it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from edge.agent import delta
from edge.agent.blobs import DeviceBlobs
from edge.agent.throttle import Stop, Throttle
from edge.agent.transfer import Wishes
from edge.agent.web import Limits, Web
from edge.protocol.messages import Source
from tests.support.tiny_registry import Handler, TinyRegistry

REPOSITORY = "team/iris"
QUICK = Limits(
    connect_s=5, read_s=5, first_wait_s=0.01, longest_wait_s=0.05, least_rate=0, slow_s=3600
)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


WEBS: list[Web] = []
"""Those that `wishes` has made; a fixture closes them."""


class MadeLayer(NamedTuple):
    """A layer, compressed and not."""

    name: str
    raw: bytes
    packed: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.packed)

    @property
    def diff_id(self) -> str:
        return digest_of(self.raw)


class Made(NamedTuple):
    """A package."""

    digest: str
    blobs: dict[str, bytes]
    layers: tuple[MadeLayer, ...]

    def layer(self, name: str) -> MadeLayer:
        return next(layer for layer in self.layers if layer.name == name)


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def make_package(**contents: bytes) -> Made:
    """A package with one layer for each argument, which holds one file."""
    layers = []
    for name, content in contents.items():
        raw = tar({f"opt/fieldpost/{name}/content": content})
        layers.append(MadeLayer(name, raw, gzip.compress(raw, 1, mtime=0)))
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": digest_of(config), "size": len(config)},
            "layers": [
                {
                    "digest": layer.digest,
                    "size": len(layer.packed),
                    "annotations": {
                        "dev.fieldpost.layer": layer.name,
                        "dev.fieldpost.unpacked-size": str(len(layer.raw)),
                    },
                }
                for layer in layers
            ],
        }
    ).encode()
    blobs = {digest_of(data): data for data in (config, manifest)}
    blobs |= {layer.digest: layer.packed for layer in layers}
    return Made(digest_of(manifest), blobs, tuple(layers))


class BlobSource(TinyRegistry):
    """A source of the kind `controller`: every blob by its digest, deltas, ranges."""

    def __init__(self, *packages: Made, **options: Any) -> None:
        super().__init__(**options)
        self.deltas: dict[tuple[str, str], bytes] = {}
        for package in packages:
            self.add(package)

    def add(self, package: Made) -> None:
        for digest, data in package.blobs.items():
            self._keep(REPOSITORY, digest, data)

    def add_delta(self, old: MadeLayer, new: MadeLayer) -> bytes:
        """Makes the delta from one layer to another; its bytes."""
        out = io.BytesIO()
        delta.make(io.BytesIO(old.raw), io.BytesIO(new.raw), out)
        self.deltas[old.digest, new.digest] = out.getvalue()
        return out.getvalue()

    def handle(self, request: Handler) -> None:
        parts = request.path.split("/")
        if "deltas" not in parts:
            super().handle(request)
            return
        data = self.deltas.get((parts[-2], parts[-1]))
        if data is None:
            request.error(404, "NO_DELTA")
            return
        headers = {"etag": f'"{digest_of(data)}"', "content-length": str(len(data))}
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        if start:
            headers |= {
                "content-range": f"bytes {start}-{len(data) - 1}/{len(data)}",
                "content-length": str(len(data) - start),
            }
        request.answer(206 if start else 200, data[start:], headers)

    @property
    def source(self) -> Source:
        return Source(url=f"{self.url}/v2/{REPOSITORY}")

    @property
    def registry(self) -> Source:
        return Source(url=f"{self.url}/v2/{REPOSITORY}", kind="registry")


def wishes(
    *sources: BlobSource | Source,
    limits: Limits = QUICK,
    rate: int = 0,
    stop: Stop | None = None,
    web: Web | None = None,
    **more: Any,
) -> Wishes:
    """How to fetch from these."""
    named = [one.source if isinstance(one, BlobSource) else one for one in sources]
    if web is None:
        web = Web(limits=limits)
        WEBS.append(web)
    return Wishes(named, web, Throttle(rate), stop or Stop(), **more)


def cut(after: int, *, claim: int = 0) -> Callable[[Handler], bool]:
    """Answers with the beginning of the blob, and ends the connection."""

    def action(request: Handler) -> bool:
        data = _blob(request)
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        request.send_response(206 if start else 200)
        request.send_header("content-length", str(claim or len(data) - start))
        if start:
            request.send_header("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        request.wfile.write(data[start : start + after])
        request.wfile.flush()
        request.drop()
        return True

    return action


def send(
    status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None
) -> Callable[[Handler], bool]:
    """Answers with this."""

    def action(request: Handler) -> bool:
        request.answer(status, body, headers)
        return True

    return action


def _blob(request: Handler) -> bytes:
    owner = request.server.owner
    assert isinstance(owner, BlobSource)
    parts = request.path.split("/")
    return owner.deltas.get((parts[-2], parts[-1])) or owner.blobs[parts[-1]]


def new_blobs(folder: Path) -> DeviceBlobs:
    return DeviceBlobs(folder / "state")
