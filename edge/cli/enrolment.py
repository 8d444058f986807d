"""The commands of `fieldpost device …` that let devices in and out."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.trust import common, opened
from scoring.commands.output import changes, show


@click.command(
    help="Make a token with which one device joins, once. It is printed now, and kept nowhere."
)
@click.argument("name")
@click.option("--site", required=True, help="Where the device is.")
@click.option("--hours", default=24.0, show_default=True, help="For how long it may be used.")
@changes
@common
def claim(
    name: str,
    site: str,
    hours: float,
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Makes a token for the device NAME."""
    from edge.protocol.names import check_name

    check_name(site, "site")
    check_name(name, "device")
    if dry_run:
        text = f"Would make a token for {site}/{name}, good for {hours:g} h."
        show({"site": site, "device": name, "dry_run": True}, text, as_json=as_json)
        return
    with opened(workspace, folder) as (_, security):
        security.ensure_authority()
        token = security.enrolment().claim(site, name, lifetime_s=hours * 3600)
    document = {"site": site, "device": name, "token": token, "hours": hours}
    show(document, token, as_json=as_json)


@click.command(help="List the tokens that may still be used; their secrets are nowhere.")
@common
def claims(workspace: str | None, folder: Path | None, as_json: bool) -> None:
    """Lists open claims."""
    import msgspec

    with opened(workspace, folder) as (_, security):
        found = security.enrolment().claims()
    lines = [f"{one.id}  {one.site}/{one.device}  until {_moment(one.expires_at)}" for one in found]
    show({"claims": msgspec.to_builtins(found)}, "\n".join(lines), as_json=as_json)


@click.command(help="Take a token back, by its id.")
@click.argument("id_", metavar="ID")
@changes
@common
def cancel(
    id_: str, workspace: str | None, folder: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Takes the claim ID back."""
    from scoring.errors import NotFoundError

    with opened(workspace, folder) as (_, security):
        if not dry_run:
            security.enrolment().cancel(id_)
        elif all(one.id != id_ for one in security.enrolment().claims()):
            raise NotFoundError(f"There is no claim {id_[:64]!a}.", hint="See 'device claims'.")
    text = f"{'Would cancel' if dry_run else 'Cancelled'} {id_}."
    show({"cancelled": id_, "dry_run": dry_run}, text, as_json=as_json)


@click.command(help="List the certificates of a device, or of all.")
@click.argument("name", default="")
@common
def certificates(name: str, workspace: str | None, folder: Path | None, as_json: bool) -> None:
    """Lists certificates."""
    import msgspec

    with opened(workspace, folder) as (_, security):
        found = security.enrolment().certificates(name)
    lines = [
        f"{one.serial[:16]}  {one.site}/{one.device}  until {_moment(one.expires_at)}"
        + (f"  revoked {_moment(one.revoked_at)} {one.reason}" if one.revoked_at else "")
        for one in found
    ]
    show({"certificates": msgspec.to_builtins(found)}, "\n".join(lines), as_json=as_json)


@click.command(help="Revoke all certificates of a device; then give the broker a new list.")
@click.argument("name")
@click.option("--reason", default="", help="For the record.")
@click.option(
    "--broker",
    "brokers",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder of 'fleet broker-config', to write the new list to. May be repeated.",
)
@changes
@common
def revoke(
    name: str,
    reason: str,
    brokers: tuple[Path, ...],
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Revokes the device NAME."""
    from edge.security import broker

    with opened(workspace, folder) as (_, security):
        enrolment = security.enrolment()
        if dry_run:
            good = [one for one in enrolment.certificates(name) if one.revoked_at is None]
            text = f"Would revoke {len(good)} certificate(s) of {name}."
        else:
            good = enrolment.revoke(name, reason)
            text = f"Revoked {len(good)} certificate(s) of {name}."
            for destination in brokers:
                broker.write_revoked(destination, enrolment.revocation_list())
    if not dry_run:
        text += (
            "\nThe controller ends its connection; its broker keeps it out from when it has read"
        )
        text += " the new list (SIGHUP)."
    document = {"device": name, "serials": [one.serial for one in good], "dry_run": dry_run}
    show(document, text, as_json=as_json)


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
