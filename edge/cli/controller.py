"""The command `fieldpost fleet controller`."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import ssl
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from edge.cli.trust import common, opened
from scoring.commands.output import note
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.controller.broker import BrokerSettings
    from edge.controller.controller import Chore, Controller
    from edge.controller.deltas import DeltaStore
    from edge.controller.monitoring import State
    from edge.controller.records import Fleet
    from edge.controller.webserver import Route, WebServer
    from edge.protocol.messages import Source
    from edge.security.fleet import FleetSecurity
    from edge.telemetry.service import TelemetryService
    from edge.workspace import Workspace

_PASSWORD: Final = "FIELDPOST_BROKER_PASSWORD"  # noqa: S105 - its name, not a password
_METRICS: Final = "FIELDPOST_METRICS_TOKEN"
_LEAST_TOKEN: Final = 16
_REFRESH_S: Final = 600.0
_CERTIFICATE_S: Final = 86400.0


class _Web(NamedTuple):
    """Where devices reach the controller."""

    url: str
    server: WebServer
    deltas: DeltaStore
    chores: list[Chore]


@click.command(help="Lead a fleet: the process to keep on.")
@click.option(
    "--broker",
    required=True,
    metavar="URL",
    help=f"mqtts://HOST:8883, or mqtt://USER@HOST:1883 with ${_PASSWORD}.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8470",
    show_default=True,
    metavar="HOST:PORT",
    help="Where devices join and fetch, over HTTPS.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="A name or address by which devices reach that; the first one is told to them. Default: "
    "where it listens.",
)
@click.option("--plain", is_flag=True, help="HTTP for devices on this machine: no certificates.")
@click.option("--number", default=1, show_default=True, help="Of this controller, from 1.")
@click.option(
    "--broker-authority",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="To know the broker by. Default: the fleet's own authority.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="URL",
    help="A registry's repository to fetch from first: https://HOST/v2/team/iris.",
)
@click.option(
    "--otlp",
    default="",
    metavar="URL",
    help="Tell what devices do to a collector of OpenTelemetry: http://HOST:4318.",
)
@click.option(
    "--keep-days",
    default=90,
    type=click.IntRange(min=1),
    show_default=True,
    help="For so long telemetry is kept here.",
)
@common
def controller(
    broker: str,
    listen: str,
    hosts: tuple[str, ...],
    plain: bool,
    number: int,
    broker_authority: Path | None,
    sources: tuple[str, ...],
    otlp: str,
    keep_days: int,
    workspace: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Runs until it is told to end; several may run at once, of which one leads."""
    from edge.controller.controller import Chore, Controller
    from edge.controller.expelling import LOOK_S, Expeller
    from edge.controller.monitoring import MetricsRoute
    from edge.controller.permits import SignedPermits
    from edge.controller.records import Fleet
    from edge.protocol.messages import Source

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    _require_sources(sources)
    hosts = hosts or _reached_at(_address(listen, plain)[0])
    with opened(workspace, folder) as (found, security), contextlib.ExitStack() as stack:
        fleet = Fleet(found.registry.database)
        director = security.director
        own = _own_files(security, number, hosts)
        settings = _broker(broker, own, broker_authority)
        told = stack.enter_context(_telemetry(found, otlp, keep_days))
        monitor = _Monitor()
        metrics = MetricsRoute(found.registry.database, monitor, told.page, _metrics_token())
        web = _serve(found, fleet, security, listen, hosts, plain, own, broker, metrics)
        stack.callback(web.deltas.close)
        web.server.start()
        stack.callback(web.server.close)
        expeller = Expeller(fleet, security.enrolment(), _PuttingOut(security, settings))
        leading = Controller(
            fleet,
            settings,
            signer=director,
            permits=SignedPermits(security.repository),
            sources=_sources(sources, web, Source),
            ingest=told,
            answers=told.live.sum,
            chores=[
                *web.chores,
                *(Chore(*one, apart=True) for one in told.upkeep()),
                Chore("revoked devices", LOOK_S, expeller, apart=True),
            ],
        )
        monitor.controller = leading
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: leading.close())
        url = _with_port(web)
        note(f"Devices join and fetch at {url}; the broker is {settings}.")
        if as_json:
            print_out({"url": url, "broker": str(settings), "pid": os.getpid()}, "", as_json=True)
        leading.run()


class _Monitor:
    """How the controller does, once there is one."""

    controller: Controller | None = None

    def __call__(self) -> State:
        from edge.controller.monitoring import State

        return self.controller.state() if self.controller else State()


def _metrics_token() -> str:
    """Who may ask for metrics from other machines: whoever has this."""
    token = os.environ.get(_METRICS, "")
    if token and not (len(token) >= _LEAST_TOKEN and token.isascii() and token.isprintable()):
        raise click.UsageError(f"${_METRICS} has {_LEAST_TOKEN} plain characters or more.")
    return token


def _telemetry(found: Workspace, otlp: str, keep_days: int) -> TelemetryService:
    from edge.telemetry.otlp import Exporter
    from edge.telemetry.service import TelemetryService
    from edge.telemetry.store import Retention

    exporter = Exporter(otlp, started=time.time()) if otlp else None
    return TelemetryService(found.folder, retention=Retention(days=keep_days), exporter=exporter)


def _sources(urls: tuple[str, ...], web: _Web, kind: type[Source]) -> list[Source]:
    from edge.controller.blobroutes import PREFIX

    own = kind(url=f"{_with_port(web)}{PREFIX}", kind="controller")
    return [*(kind(url=url.rstrip("/"), kind="registry") for url in urls), own]


def _require_sources(urls: tuple[str, ...]) -> None:
    from urllib.parse import urlsplit

    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise click.BadParameter(
                "It is no URL of a repository, as in https://HOST/v2/team/iris; "
                "logins stand in the agent.toml of devices.",
                param_hint="--source",
            )


def _with_port(web: _Web) -> str:
    return f"{web.url}:{web.server.port}"


def _own_files(security: FleetSecurity, number: int, hosts: tuple[str, ...]) -> tuple[Path, Path]:
    """This controller's certificate with its key, and the authority's, as files."""
    from edge.security import certificates
    from scoring import durable

    authority = security.ensure_authority()
    pair = certificates.for_controller(authority, number, hosts, time.time())
    own = pair.write(security.folder / f"controller-{number}.pem")
    trusted = security.folder / "trusted.pem"
    durable.write_bytes(trusted, authority.pem)
    return own, trusted


def _broker(url: str, own: tuple[Path, Path], authority: Path | None) -> BrokerSettings:
    from edge.controller import broker

    password = os.environ.get(_PASSWORD, "")
    settings = broker.parse_url(
        url, password, authority=authority or own[1], certificate=own[0], key=None
    )
    broker.check(settings)
    return settings


def _serve(
    found: Workspace,
    fleet: Fleet,
    security: FleetSecurity,
    listen: str,
    hosts: tuple[str, ...],
    plain: bool,
    own: tuple[Path, Path],
    broker: str,
    metrics: Route,
) -> _Web:
    from edge.controller.blobroutes import BlobRoutes, Catalogue, EndpointRoute
    from edge.controller.controller import Chore
    from edge.controller.deltas import DeltaStore
    from edge.controller.webserver import WebServer

    host, port = _address(listen, plain)
    tls = None if plain else _tls(own)
    name = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
    url = f"http{'' if plain else 's'}://{name}"
    blobs = found.registry.blobs
    deltas = DeltaStore(found.folder / "fleet" / "deltas", blobs)
    enrolment = security.enrolment()
    routes: list[Route] = []
    server = WebServer(routes, host=host, port=port, tls=tls)
    place = {"broker": _without_user(broker), "controller": f"{url}:{server.bind()}"}
    routes += [
        BlobRoutes(Catalogue(fleet, blobs), deltas, None if plain else enrolment.is_revoked),
        EndpointRoute(security.endpoint(place).handle, fleet.enrolled),
        metrics,
    ]
    chores = [Chore("metadata", _REFRESH_S, security.refresh)]
    if tls is not None:
        renewal = _Renewal(security, own[0], hosts, server.renew)
        chores.append(Chore("certificate", _CERTIFICATE_S, renewal))
    return _Web(url, server, deltas, chores)


class _PuttingOut:
    """Ends the connection of a device by connecting in its place, for a moment."""

    def __init__(self, security: FleetSecurity, settings: BrokerSettings) -> None:
        self._security, self._settings = security, settings

    def __call__(self, site: str, device: str) -> bool:
        import msgspec

        from edge.controller.broker import take_over
        from edge.security import certificates

        settings = self._settings
        with tempfile.TemporaryDirectory(prefix="fieldpost-") as folder:
            if settings.tls:
                authority = self._security.ensure_authority()
                pair = certificates.in_place_of(authority, site, device, time.time())
                own = pair.write(Path(folder) / "certificate.pem")
                settings = msgspec.structs.replace(settings, certificate=own, key=None)
            return take_over(settings, f"{site}.{device}")


class _Renewal:
    """Makes the controller's certificate anew every day."""

    def __init__(
        self,
        security: FleetSecurity,
        file: Path,
        hosts: tuple[str, ...],
        show: Callable[[Path], None],
    ) -> None:
        self._security = security
        self._file = file
        self._hosts = hosts
        self._show = show
        self._first = True

    def __call__(self) -> None:
        if not self._first:
            number = int(self._file.stem.rpartition("-")[2])
            _own_files(self._security, number, self._hosts)
            self._show(self._file)
        self._first = False


def _address(listen: str, plain: bool) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise click.BadParameter(f"'{listen}' is not of the form HOST:PORT.", param_hint="--listen")
    host = host.strip("[]")
    if plain and not _is_loopback(host):
        raise click.UsageError(
            "--plain is for devices on this machine: listen at 127.0.0.1, or leave it out."
        )
    return host, int(port)


def _reached_at(host: str) -> tuple[str, ...]:
    """By which names devices reach this where nobody says: the certificate has to have them."""
    if host not in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not listened at
        return tuple(dict.fromkeys((host, "localhost")))
    note("Only devices on this machine reach this: --host says by which name others do.")
    return ("localhost",)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(own: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=own[1])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(own[0])
    # A device that joins has no certificate yet; what needs one says so.
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _without_user(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
