"""A Ray Serve application: the unpacked package, a module that runs it, and its configuration."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from serve.server.settings import PREFIX
from serve.targets.kubernetes import quantities
from serve.targets.kubernetes.export.documents import Files, stream
from serve.targets.kubernetes.export.plain import about
from serve.targets.kubernetes.objects.config import JOBS_FOLDER, server_variables
from serve.targets.kubernetes.objects.meta import names_of
from serve.targets.kubernetes.objects.resources import resources as resources_of

if TYPE_CHECKING:
    from pathlib import Path

    from serve.targets.kubernetes.deployable import Deployable
    from serve.targets.kubernetes.objects import Object

MODULE = "fieldpost_app"
FOLDER = "package"
_MANIFEST = "package.json"
_IN_FLIGHT = 100
_SERVER_S = 5
# Of the pod's own: the address, and files that are mounted there.
_NOT_HERE = frozenset(
    PREFIX + name for name in ("HOST", "API_KEYS", "TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA")
)


def ray_files(of: Deployable) -> Files:
    """The module and the configuration; `copy_package` adds the package."""
    module = resources.files(__package__).joinpath("ray_application.py").read_bytes()
    return {
        f"{MODULE}.py": module,
        "serve.yaml": stream([configuration(of)], about(of)),
        "requirements.txt": b"aiohttp\nray[serve]\n",
    }


def configuration(of: Deployable) -> Object:
    """As `serve run`, `serve deploy` and a RayService take it."""
    variables = server_variables(of)
    kept = {key: text for key, text in variables.items() if key not in _NOT_HERE}
    if kept.get(f"{PREFIX}JOBS_DIR") == JOBS_FOLDER:
        del kept[f"{PREFIX}JOBS_DIR"]
    return {
        "applications": [
            {
                "name": names_of(of).base,
                "route_prefix": of.settings.path,
                "import_path": f"{MODULE}:app",
                "args": {
                    "package": of.package.digest,
                    "settings": kept,
                    # Their values are in no file: whoever starts Ray gives them to the replicas.
                    "variables": sorted(of.settings.env),
                },
                "deployments": [_deployment(of)],
            }
        ]
    }


def _deployment(of: Deployable) -> Object:
    settings = of.settings
    found: Object = {
        "name": "Package",
        "max_ongoing_requests": _IN_FLIGHT,
        "graceful_shutdown_timeout_s": math.ceil(settings.drain_timeout_s) + _SERVER_S,
        "ray_actor_options": _actor(of),
    }
    if settings.max_replicas is None:
        return found | {"num_replicas": settings.replicas}
    scaling: Object = {"min_replicas": settings.replicas, "max_replicas": settings.max_replicas}
    if settings.target_in_flight is not None:
        scaling["target_ongoing_requests"] = settings.target_in_flight
    return found | {"autoscaling_config": scaling}


def _actor(of: Deployable) -> Object:
    promised = resources_of(of)["requests"]
    found: Object = {
        "num_cpus": float(quantities.parse("cpu", promised["cpu"])),
        "memory": int(quantities.parse("memory", promised["memory"])),
    }
    return found | ({"num_gpus": of.settings.gpus} if of.settings.gpus else {})


def copy_package(root: Path, folder: Path, digest: str) -> None:
    """Copies an unpacked package, with the digest of each file.

    Args:
        root: The package's, whose parts may be links.
        folder: Of the application.
        digest: Of the package.
    """
    new, place = folder / f".{FOLDER}-new", folder / FOLDER
    shutil.rmtree(new, ignore_errors=True)
    for part in ("env", "runtime", "code", "model"):
        if (root / part).is_dir():
            shutil.copytree(root / part, new / part, symlinks=False, copy_function=shutil.copy2)
    files = {
        path.relative_to(new).as_posix(): _digest(path)
        for path in sorted(new.rglob("*"))
        if path.is_file()
    }
    shutil.rmtree(place, ignore_errors=True)
    os.replace(new, place)  # noqa: PTH105 - a folder
    document = msgspec.json.encode({"package": digest, "files": files})
    (folder / _MANIFEST).write_bytes(msgspec.json.format(document) + b"\n")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
