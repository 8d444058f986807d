"""The command `fieldpost fleet broker-config`, and `revoked-list` beside it."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.trust import common, opened
from scoring.commands.output import changes, show


@click.command(
    name="broker-config", help="Write Mosquitto's configuration, access list and certificates."
)
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    help="A name or address that devices reach the broker at. May be repeated.",
)
@click.option("--port", default=8883, show_default=True, help="Of TLS.")
@click.option("--address", default="", help="To listen at. Default: all.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Where the broker keeps sessions and retained messages. Default: DESTINATION/data.",
)
@click.option("--controllers", default=4, show_default=True, help="How many may connect.")
@click.option("--devices", default=20_000, show_default=True, help="How many may connect.")
@click.option("--user", default="", help="Whom Mosquitto becomes when root starts it.")
@changes
@common
def broker_config(
    destination: Path,
    hosts: tuple[str, ...],
    port: int,
    address: str,
    data: Path | None,
    controllers: int,
    devices: int,
    user: str,
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Writes the configuration into DESTINATION."""
    import time

    from edge.security import broker, certificates

    destination = destination.absolute()
    described = broker.Broker(
        folder=destination,
        data=(data or destination / "data").absolute(),
        port=port,
        address=address,
        controllers=controllers,
        devices=devices,
        user=user,
    )
    text = broker.config(described)
    if dry_run:
        show({"config": text, "acl": broker.acl(controllers)}, text, as_json=as_json)
        return
    with opened(workspace, folder) as (_, security):
        authority = security.ensure_authority()
        made = certificates.for_server(authority, hosts, time.time())
        files = broker.write(
            described,
            authority=authority.pem,
            certificate=made.certificate,
            key=made.key,
            revoked=security.enrolment().revocation_list(),
        )
    text = f"Wrote {len(files)} files. Start the broker with:\n"
    text += f"  mosquitto -c {destination / broker.CONFIG}"
    show({"files": files, "start": ["mosquitto", "-c", files[0]]}, text, as_json=as_json)


@click.command(
    name="revoked-list", help="Write the list of revoked certificates for a broker, then HUP it."
)
@click.argument("destination", type=click.Path(path_type=Path))
@changes
@common
def revoked_list(
    destination: Path, workspace: str | None, folder: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Writes `revoked.pem` into DESTINATION."""
    from edge.security import broker

    with opened(workspace, folder) as (_, security):
        enrolment = security.enrolment()
        count = len(enrolment.revoked())
        path = destination / broker.REVOKED
        if not dry_run:
            path = broker.write_revoked(destination, enrolment.revocation_list())
    text = f"Wrote {path}: {count} revoked. Send the broker SIGHUP for it to be read."
    text = f"Would write {path}: {count} revoked." if dry_run else text
    show({"file": path, "revoked": count, "dry_run": dry_run}, text, as_json=as_json)
