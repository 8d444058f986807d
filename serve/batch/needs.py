"""What a package's environment has to hold so that its pods can read and write a run's data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scoring.batch import files
from scoring.batch.stores import is_url
from scoring.errors import MissingDependencyError
from scoring.packages.platformindex import package_manifests

if TYPE_CHECKING:
    from scoring.batch.records import Options
    from serve.registry import Registry
    from serve.registry.records import Package

_PARQUET, _URLS = "pyarrow", "fsspec"
# What fsspec itself asks for.
_SYSTEMS = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **dict.fromkeys(("hdfs", "arrow_hdfs"), _PARQUET),
    "smb": "smbprotocol",
    "oci": "ocifs",
    "hf": "huggingface-hub",
}


def needed(options: Options) -> tuple[str, ...]:
    """The distributions that places and formats ask for, as far as names tell. Pure."""
    places = (options.input, options.output)
    given = (options.input_format, options.output_format)
    found = {_PARQUET} if "parquet" in {*given, *(files.format_of(p)[0] for p in places)} else set()
    for scheme in (place.partition("://")[0] for place in places if is_url(place)):
        found |= {_URLS, *filter(None, [_SYSTEMS.get(scheme)])}
    return tuple(sorted(found))


def require(package: Package, options: Options, registry: Registry) -> None:
    """Refuses a run whose pods could not read or write its data, before there is a Job.

    Raises:
        MissingDependencyError: The package's environment lacks something.
    """
    wanted = needed(options)
    if not wanted:
        return
    held = _held(package, registry)
    missing = [name for name in wanted if name not in held]
    if missing:
        listed = ", ".join(missing)
        raise MissingDependencyError(
            f"The package {package.model_ref or package.digest[:19]} lacks {listed}, with which "
            "its pods would read and write this.",
            hint=f"Add {listed} to its environment and build it again ('fieldpost env register "
            "NAME requirements.txt', 'fieldpost package build --env NAME'), or use CSV or JSON "
            "Lines on a volume.",
        )


def _held(package: Package, registry: Registry) -> set[str]:
    """What is in the environments of all its platforms."""
    from serve.provenance import facts  # noqa: PLC0415 - for those who need something
    from serve.provenance.inventory import take_inventory  # noqa: PLC0415

    index = package_manifests(package.digest, registry.blobs)
    digests = [package.digest] if index is None else [each.digest for each in index.manifests]
    cache = facts.folder(registry.location.blobs)
    held = [
        {_plain(each.name) for each in take_inventory(digest, registry.blobs, cache).components}
        for digest in digests
    ]
    return set.intersection(*held)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
