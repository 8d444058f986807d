"""What all clients of a front's worker share: the traffic, the deployments, the clock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from serve.endpoints.front import exposition
from serve.endpoints.front.backend import Backend
from serve.endpoints.front.config import Address, FrontConfig, FrontSettings
from serve.endpoints.front.shadowing import Shadowing
from serve.endpoints.front.stats import Report, merged
from serve.endpoints.routing import Router
from serve.server.errors import RouteNotFoundError
from serve.server.settings import ServerSettings
from serve.targets.local import processes

if TYPE_CHECKING:
    from serve.endpoints.front.downstream import Downstream
    from serve.endpoints.front.exchange import Request
    from serve.endpoints.front.tunnel import Tunnel

logger = logging.getLogger(__name__)

Reports = Callable[[], Awaitable[list[Report]]]
"""Asks the other workers of the endpoint what they have counted."""

MOST_BODY_BYTES = 1 << 40
"""Bodies are passed through: the deployment's own limit decides."""

PROBE_S = 2.0
_PROBE_TIMEOUT_S = 2.0
_TICK_S = 0.25
_PROBE = b"GET /v2/health/ready HTTP/1.1\r\nhost: fieldpost\r\nconnection: close\r\n\r\n"
_JSON = ("content-type", "application/json")
_LIVE, _READY = b"/v2/health/live", b"/v2/health/ready"
_METRICS = b"/metrics"


class Front:
    """The shared part of all connections; it lives on the event loop's thread.

    Args:
        settings: Of the endpoint.
        config: Where requests go at first.
        others: See `Reports`.
        draw: Numbers in [0, 1).

    Attributes:
        router: Decides for each request.
        backends: The deployments by name.
        limits: For heads; those of our servers.
        draining: The worker is about to go.
    """

    def __init__(
        self,
        settings: FrontSettings,
        config: FrontConfig,
        others: Reports,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.draw = draw
        self.limits = ServerSettings(max_body_bytes=MOST_BODY_BYTES)
        self.backends: dict[str, Backend] = {}
        self.shadowing = Shadowing(self)
        self.draining = False
        self.most_kept = max(settings.replay_bytes, settings.shadow_bytes)
        self.emptied = asyncio.Event()
        self.wall_clock = time.time
        self._others = others
        self._clients: set[Downstream] = set()
        self._tunnels: set[Tunnel] = set()
        self._refused: dict[int, int] = {}
        self._me = processes.identify(os.getpid())
        self._work: set[asyncio.Task[object]] = set()
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.config = config
        self.apply(config)

    def apply(self, config: FrontConfig) -> None:
        """Follows another traffic from now on: requests under way end where they are."""
        self.config = config
        names = config.traffic.deployments
        for name in [*self.backends]:
            if name not in names:
                self.backends.pop(name).close()
        for name in names:
            self._update(name, config.addresses.get(name, Address("")))
        self.router = Router(config.traffic)
        self.shadowing.keep({shadow.deployment for shadow in config.traffic.shadows})
        answering = {name for name, weight in config.traffic.weights.items() if weight}
        for tunnel in tuple(self._tunnels):
            if tunnel.deployment not in answering:
                tunnel.leave()

    def _update(self, name: str, address: Address) -> None:
        present = self.backends.get(name)
        if present is not None and present.address == address:
            return
        try:
            made = Backend(name, address)
        except OSError as error:
            logger.warning("The certificate of %s cannot be read: %s", name, error)
            made = Backend(name, Address(""))
        if present is not None:
            made.counts = present.counts
            present.close()
        self.backends[name] = made

    # Clients

    def admit(self, client: Downstream) -> bool:
        """Takes a client up; False: there are too many."""
        self._clients.add(client)
        self.emptied.clear()
        return len(self._clients) + len(self._tunnels) <= self.settings.max_connections

    def leave(self, client: Downstream) -> None:
        """A client's connection has ended, or has become a tunnel."""
        self._clients.discard(client)
        self._look()

    def dig(self, tunnel: Tunnel) -> None:
        """An HTTP/2 connection begins."""
        self._tunnels.add(tunnel)
        self.emptied.clear()

    def fill(self, tunnel: Tunnel) -> None:
        """It has ended."""
        self._tunnels.discard(tunnel)
        self._look()

    def _look(self) -> None:
        if not self._clients and not self._tunnels:
            self.emptied.set()

    @property
    def connections(self) -> int:
        """Of clients."""
        return len(self._clients) + len(self._tunnels)

    def refused(self, status: int) -> None:
        """Counts a request that went to no deployment."""
        self._refused[status] = self._refused.get(status, 0) + 1

    def draw_shadows(self) -> tuple[str, ...]:
        """The shadows that get a copy of the next request."""
        return tuple(name for name, part in self.router.shadows if self.draw() < part)

    # The front's own answers

    def own(self, request: Request) -> bytes | None:
        """The path, where the front answers itself."""
        if request.method not in (b"GET", b"HEAD"):
            return None
        path = request.target.partition(b"?")[0]
        return path if path in (_LIVE, _READY, _METRICS) else None

    def answer_own(self, client: Downstream, request: Request, path: bytes) -> None:
        """Answers health and metrics."""
        if path == _METRICS and not self.settings.metrics:
            client.tell(RouteNotFoundError("This endpoint does not show its metrics."), request)
            client.own_answered()
            return
        if path == _METRICS:
            task = asyncio.ensure_future(self._answer_metrics(client, request))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
            return
        ready = path == _LIVE or self.is_ready()
        body = msgspec.json.encode({"live": True} if path == _LIVE else {"ready": ready})
        client.write_answer(200 if ready else 503, [_JSON], body, request)
        client.own_answered()

    async def _answer_metrics(self, client: Downstream, request: Request) -> None:
        body = exposition.render(self.config.name, merged([self.report(), *await self._others()]))
        client.write_answer(200, [("content-type", exposition.CONTENT_TYPE)], body, request)
        client.own_answered()

    def is_ready(self) -> bool:
        """Whether requests would be answered: a deployment with a share seems to."""
        now = self.now()
        weights = self.config.traffic.weights
        return not self.draining and any(
            weight and self.backends[name].seems_up(now) for name, weight in weights.items()
        )

    def report(self) -> Report:
        """What this worker has counted."""
        now = self.now()
        return Report(
            worker=f"{self._me.pid}/{self._me.started}",
            generation=self.config.generation,
            backends={name: backend.counts for name, backend in self.backends.items()},
            shadows=self.shadowing.counts,
            up={name: backend.seems_up(now) for name, backend in self.backends.items()},
            weights=dict(self.config.traffic.weights),
            connections=self.connections,
            refused=self._refused,
        )

    # What happens by the clock

    def start(self) -> None:
        """Begins to watch deadlines and the deployments' health."""
        self._work.add(asyncio.ensure_future(self._tick()))
        self._work.add(asyncio.ensure_future(self._probe()))

    async def stop(self) -> None:
        """Ends what still runs."""
        work = tuple(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        for client in tuple(self._clients):
            client.abort()
        for tunnel in tuple(self._tunnels):
            tunnel.close()
        for backend in self.backends.values():
            backend.close()

    def end_idle(self) -> None:
        """Closes the connections of clients that are not waiting for anything."""
        for client in tuple(self._clients):
            client.drain()
        for tunnel in tuple(self._tunnels):
            tunnel.leave()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = self.now()
            for client in tuple(self._clients):
                if client.deadline < now:
                    client.expire()
            for backend in self.backends.values():
                backend.trim(now)
            self.shadowing.tick(now)

    async def _probe(self) -> None:
        while True:
            backends = tuple(self.backends.values())
            answers = await asyncio.gather(*(self._is_healthy(each) for each in backends))
            for backend, ready in zip(backends, answers, strict=True):
                if backend.ready != ready:
                    logger.info("%s is %s", backend.name, "up" if ready else "down")
                backend.ready = ready
            await asyncio.sleep(PROBE_S)

    async def _is_healthy(self, backend: Backend) -> bool:
        """Whether it says that it is ready; one without that route, or with keys, is."""
        if not backend.host:
            return False
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(
                    backend.host, backend.port, ssl=backend.tls
                )
                try:
                    writer.write(_PROBE)
                    status = (await reader.readline()).split(b" ")[1:2]
                finally:
                    writer.close()
        except (OSError, ValueError):
            return False
        with contextlib.suppress(ValueError, IndexError):
            return int(status[0]) < 500  # noqa: PLR2004 - a server's error
        return False
