"""The registry from which a real cluster pulls what tests push.

FIELDPOST_TEST_REGISTRY names it (REGISTRY/NAME, with FIELDPOST_TEST_REGISTRY_HTTP=1 where it has
no TLS). Where it names none, and a node of the cluster is this very machine, one is started here:
nodes take what is on their own loopback without TLS.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import registry as registries

if TYPE_CHECKING:
    from serve.targets.kubernetes.client import Cluster

TEST_REGISTRY = "FIELDPOST_TEST_REGISTRY"


class Place(NamedTuple):
    """Where images go.

    Attributes:
        name: `REGISTRY/NAME`.
        plain_http: It speaks no TLS.
    """

    name: str
    plain_http: bool


def place_for(cluster: Cluster) -> Place:
    """Where the cluster pulls from; the test is skipped where nothing is."""
    if named := os.environ.get(TEST_REGISTRY):
        return Place(named, bool(os.environ.get(f"{TEST_REGISTRY}_HTTP")))
    if not any(map(_is_here, _addresses(cluster))):
        pytest.skip(f"{TEST_REGISTRY} names no registry, and no node is on this machine")
    if not registries.is_installed():
        pytest.skip(f"{TEST_REGISTRY} names no registry, and docker-registry is not installed")
    return Place(f"{_started()}/fieldpost/tests", plain_http=True)


def _addresses(cluster: Cluster) -> list[str]:
    return [
        str(each.get("address"))
        for node in cluster.list("Node").items
        for each in (node.get("status") or {}).get("addresses") or ()
        if each.get("type") in ("InternalIP", "ExternalIP")
    ]


def _is_here(address: str) -> bool:
    """Whether this machine has the address: only then can it be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


@cache
def _started() -> str:
    """One for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="fieldpost-registry-"))
    registry = registries.DockerRegistry(folder)
    registry.start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(registry.stop)  # first: the last that is registered
    return registry.host
