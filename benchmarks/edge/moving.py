"""Bytes on the wire to bring a device from one version of a model of 10 MB to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.edge.place import until
from benchmarks.images.proxy import CountingProxy, counting
from benchmarks.images.weights import model as make_model
from benchmarks.results import Row
from edge.agent.packages import Packages
from edge.agent.throttle import Stop, Throttle
from edge.agent.transfer import Wishes
from edge.agent.web import Web
from edge.controller.blobroutes import PREFIX, BlobRoutes, Catalogue
from edge.controller.deltas import DeltaStore
from edge.controller.records import Fleet
from edge.controller.webserver import WebServer
from edge.protocol.messages import Module, Source
from scoring.packages import reading
from serve import Workspace
from tests.support.small_packages import small_package

_BYTES = 10_000_000
_QUICK_BYTES = 500_000
_EXTRA = 20_000
_MOVED = 0.05
_STEP = 1e-3


def models(size: int) -> tuple[bytes, bytes, bytes]:
    """A model, one of other weights, and the first one with a twentieth of its weights moved."""
    first, other, tuned = make_model(size, 1), make_model(size, 2), make_model(size, 1)
    weights = np.frombuffer(tuned.graph.initializer[0].raw_data, "float32").copy()
    chance = np.random.default_rng(3)
    moved = chance.choice(weights.size, int(weights.size * _MOVED), replace=False)
    weights[moved] += chance.normal(scale=_STEP, size=moved.size).astype("float32")
    tuned.graph.initializer[0].raw_data = weights.tobytes()
    made = [one.SerializeToString() for one in (first, other, tuned)]
    return made[0], made[1], made[2]


@contextmanager
def controller(workspace: Workspace, folder: Path) -> Iterator[tuple[CountingProxy, DeltaStore]]:
    """The controller's HTTP, behind a proxy that counts."""
    blobs = workspace.registry.blobs
    deltas = DeltaStore(folder / "deltas", blobs)
    routes = [BlobRoutes(Catalogue(Fleet(workspace.registry.database), blobs), deltas, None)]
    server = WebServer(list(routes), host="127.0.0.1", port=0, tls=None)
    server.start()
    try:
        with counting(server.port) as proxy:
            yield proxy, deltas
    finally:
        server.close()
        deltas.close()


class Move:
    """A device with the first version, which gets the next.

    Args:
        folder: Of the device.
        proxy: Where it fetches from.
    """

    def __init__(self, folder: Path, proxy: CountingProxy) -> None:
        self._packages, self._proxy = Packages(folder), proxy
        source = Source(url=f"http://127.0.0.1:{proxy.port}{PREFIX}", kind="controller")
        self._web = Web()
        self._wishes = Wishes((source,), self._web, Throttle(), Stop())
        self._has: list[str] = []

    def get(self, package: str) -> int:
        """Fetches and unpacks a package; the bytes on the wire, both ways."""
        before = self._proxy.sent + self._proxy.received
        module = Module(package=package)
        self._packages.fetch(module, self._wishes, self._has)
        self._packages.root(module)
        self._has.append(package)
        return self._proxy.sent + self._proxy.received - before

    def close(self) -> None:
        """Ends its connections."""
        self._web.close()


def rows(folder: Path, *, quick: bool) -> list[Row]:
    """Whole, and as a delta."""
    size = _QUICK_BYTES if quick else _BYTES
    folder.mkdir(exist_ok=True)
    with Workspace(folder / "workspace") as workspace:
        packages = [
            small_package(workspace, folder, name="bench", content=content).digest
            for content in models(size)
        ]
        fleet = Fleet(workspace.registry.database)
        wanted = {f"m{number}": Module(package=one) for number, one in enumerate(packages)}
        fleet.deploy("bench", wanted, condition="*")
        layers = [_model_layer(workspace, one) for one in packages]
        with controller(workspace, folder) as (proxy, deltas):
            until("the delta is made", lambda: _made(deltas, layers), 120)
            whole = _moved(folder / "one", proxy, packages[0], packages[1])
            delta = _moved(folder / "two", proxy, packages[0], packages[2])
        compressed = workspace.registry.blobs.path(layers[1][0]).stat().st_size
    return [_whole(whole, compressed, size), _delta(delta, compressed, size)]


def _model_layer(workspace: Workspace, package: str) -> tuple[str, str]:
    found = reading.read_package(package, workspace.registry.blobs)
    layer = next(one for one in found.layers if one.name == "model")
    return layer.digest, package


def _made(deltas: DeltaStore, layers: list[tuple[str, str]]) -> bool:
    return deltas.path(layers[0][0], layers[2][0]) is not None


def _moved(folder: Path, proxy: CountingProxy, old: str, new: str) -> int:
    device = Move(folder, proxy)
    try:
        device.get(old)
        return device.get(new)
    finally:
        device.close()


def _whole(ours: int, compressed: int, size: int) -> Row:
    most = compressed + _EXTRA
    return Row(
        work=f"bytes to the next version of a model of {size / 1e6:g} MB, all weights new",
        unit="bytes",
        ours=ours,
        target=f"the compressed model and 20 kB: {most}",
        reached=ours <= most,
        peers={"the model's compressed layer": compressed},
        ratio=ours / compressed,
        notes="Both ways, headers and all, counted by a proxy; checked and unpacked.",
    )


def _delta(ours: int, compressed: int, size: int) -> Row:
    return Row(
        work=f"bytes to a fine-tuned version of {size / 1e6:g} MB, 5% of the weights moved",
        unit="bytes",
        ours=ours,
        target=f"under a fifth: {compressed // 5}",
        reached=ours < compressed / 5,
        peers={"the model's compressed layer": compressed},
        ratio=ours / compressed,
        notes="The weights that moved are spread over the whole matrix; the delta was made before.",
    )
