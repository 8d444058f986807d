"""Root filesystems of a few bytes, and images of them, written with tools that are not ours."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

MACHINES = {"linux/amd64": 0x3E, "linux/arm64": 0xB7}


def program(platform: str = "linux/amd64") -> bytes:
    """The first bytes of a program for a platform."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00"
    return head + MACHINES[platform].to_bytes(2, "little") + bytes(100)


def entry(name: str, content: bytes = b"", **given: Any) -> tuple[tarfile.TarInfo, bytes]:
    """An entry of an archive; `type`, `linkname`, `mode` and the like as of `TarInfo`."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in given.items():
        setattr(info, key, value)
    return info, content


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    """A folder."""
    return entry(name, type=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str, *, hard: bool = False) -> tuple[tarfile.TarInfo, bytes]:
    """A symbolic or hard link."""
    return entry(name, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=target)


def archive(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """An uncompressed archive, as Python's `tarfile` writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def system(
    python: str = "3.11", platform: str = "linux/amd64"
) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The entries of a system with a Python of that version."""
    return [
        folder("./"),
        folder("./usr/"),
        folder("./usr/bin/"),
        link("./bin", "usr/bin"),
        entry(f"./usr/bin/python{python}", program(platform), mode=0o755),
        link("./usr/bin/python3", f"python{python}"),
        entry("./usr/bin/su", b"s", mode=0o4755),
        folder("./usr/lib64"),
        entry("./usr/lib64/ld-linux-x86-64.so.2", b"ld"),
        folder("./etc"),
        link("./etc/localtime", "/usr/share/zoneinfo/UTC"),
        folder("./dev"),
        entry("./dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    ]


def unchanged(_kind: str, document: dict[str, Any]) -> dict[str, Any]:
    """A document as it is."""
    return document


def write_layout(
    root: Path,
    *,
    platforms: Iterable[str] = ("linux/amd64",),
    tag: str = "",
    change: Callable[[str, dict[str, Any]], dict[str, Any]] = unchanged,
    **config: Any,
) -> dict[str, str]:
    """An OCI layout of systems, one for each platform; their digests by platform.

    `change` may put another document in the place of a `config`, `manifest` or `index`.
    """
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def put_json(document: dict[str, Any], media_type: str) -> dict[str, Any]:
        return put(json.dumps(document, indent=1).encode(), media_type)

    entries = []
    for platform in platforms:
        os, _, architecture = platform.partition("/")
        layer = archive(system(platform=platform))
        document = {
            "architecture": architecture,
            "os": os,
            "config": config,
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "config": put_json(
                change("config", document), "application/vnd.oci.image.config.v1+json"
            ),
            "layers": [put(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
        named = put_json(change("manifest", manifest), "application/vnd.oci.image.manifest.v1+json")
        entries.append(named | {"platform": {"os": os, "architecture": architecture}})
    digests = {
        f"{each['platform']['os']}/{each['platform']['architecture']}": str(each["digest"])
        for each in entries
    }
    top = entries[0]
    if len(entries) > 1:
        kind = "application/vnd.oci.image.index.v1+json"
        top = put_json({"schemaVersion": 2, "mediaType": kind, "manifests": entries}, kind)
    if tag:
        top = top | {"annotations": {"org.opencontainers.image.ref.name": tag}}
    index = change("index", {"schemaVersion": 2, "manifests": [top]})
    (root / "index.json").write_text(json.dumps(index))
    return digests
