"""`fieldpost package push` and `pull`: packages to registries and back."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from scoring.commands.output import changes, common, fields, note, show, size
from serve.cli.export import BASE_HELP

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from serve.registry.records import Package
    from serve.workspace.transfers import PullPlanned, PushPlanned

_PLAIN = click.option(
    "--plain-http", is_flag=True, help="Without TLS. Registries of this machine need no telling."
)
_SECOND_S = 0.2


@click.command(help="Push a package's image to a registry.")
@click.argument("ref")
@click.argument("dest", metavar="REGISTRY/NAME:TAG")
@click.option("--base", help=BASE_HELP)
@click.option("--platform", help="Of a package for several platforms, only these.")
@click.option("--no-base", "bare", is_flag=True, help="The package by itself: no engine runs it.")
@click.option(
    "--no-attach", is_flag=True, help="Without SBOMs, provenance and signatures beside it."
)
@_PLAIN
@changes
@common
def push(
    ref: str,
    dest: str,
    base: str | None,
    platform: str | None,
    bare: bool,
    no_attach: bool,
    plain_http: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Puts REF on a base and sends what the registry lacks; interrupted, run it again."""
    from serve.workspace import Workspace

    if bare and base:
        raise click.UsageError("--no-base and --base exclude each other.")
    with Workspace(workspace) as opened:
        package = opened.packages.get(ref)
        if dry_run:
            plan = opened.packages.plan_push(
                package, dest, base=base, platform=platform, bare=bare, plain_http=plain_http
            )
            show(plan, _describe(plan), as_json=as_json)
            return
        with Meter("sent", quiet=as_json) as meter:
            done = opened.packages.push(
                package,
                dest,
                base=base,
                platform=platform,
                bare=bare,
                attach=not no_attach,
                plain_http=plain_http,
                progress=meter.add,
            )
    if done.warning and not as_json:
        note(f"Warning: {done.warning}")
    text = (
        f"Pushed {done.reference}: {size(done.bytes_sent)} sent, {done.blobs_sent} blobs new, "
        f"{done.mounted} mounted, {done.existing} there, {done.seconds:.1f} s\n{done.digest}"
    )
    show(done, text, as_json=as_json)


def _describe(plan: PushPlanned) -> str:
    return fields(
        [
            ("would push", plan.reference),
            ("image", plan.digest),
            ("package", plan.package),
            ("platforms", ", ".join(plan.platforms)),
            ("bases", "\n".join(plan.bases)),
            ("to send", f"{size(plan.bytes_missing)} in {len(plan.missing)} blobs"),
            ("there", f"{plan.existing} blobs"),
            ("warning", plan.warning),
        ]
    )


@click.command(help="Pull a package from a registry.")
@click.argument("reference", metavar="REGISTRY/NAME:TAG")
@click.option("--platform", help="Of a package for several platforms, only this one.")
@_PLAIN
@changes
@common
def pull(
    reference: str,
    platform: str | None,
    plain_http: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Fetches what the workspace lacks of a package; its base stays where it is.

    What `package export` wrote is read back from oci:DIR[:TAG] or oci-archive:FILE[:TAG].
    """
    if reference.startswith(("oci:", "oci-archive:")):
        if dry_run:
            raise click.UsageError("--dry-run is for registries.")
        _take(reference, platform, workspace, as_json=as_json)
        return
    from serve.workspace import Workspace

    with Workspace(workspace) as opened, Meter("received", quiet=as_json) as meter:
        if dry_run:
            plan = opened.packages.plan_pull(reference, platform=platform, plain_http=plain_http)
            show(plan, _describe_pull(plan), as_json=as_json)
            return
        done = opened.packages.pull(
            reference, platform=platform, plain_http=plain_http, progress=meter.add
        )
    text = (
        f"Pulled {_label(done.package)} from {done.reference}: {size(done.bytes_received)} "
        f"received, {done.blobs_fetched} blobs new, {done.existing} there, {done.seconds:.1f} s\n"
        f"{done.package.digest}"
    )
    show(done, text, as_json=as_json)


def _take(place: str, platform: str | None, workspace: str | None, *, as_json: bool) -> None:
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        package = opened.packages.take(place, platform=platform)
    text = f"Took {_label(package)} from {place}\n{package.digest}"
    show({"reference": place, "package": package}, text, as_json=as_json)


def _label(package: Package) -> str:
    return package.model_ref or package.model or ""


def _describe_pull(plan: PullPlanned) -> str:
    return fields(
        [
            ("would pull", plan.reference),
            ("package", plan.package),
            ("to receive", f"{size(plan.bytes_missing)} in {len(plan.missing)} blobs"),
            ("there", f"{plan.existing} blobs"),
        ]
    )


class Meter:
    """A line on the terminal that says how far a transfer is; nothing where none looks.

    Args:
        verb: What happens to the bytes.
        quiet: Say nothing at all.
    """

    def __init__(self, verb: str, *, quiet: bool) -> None:
        self._verb = verb
        self._shows = not quiet and sys.stderr.isatty()
        self._bytes = 0
        self._told = 0.0

    def add(self, count: int) -> None:
        """Counts bytes."""
        self._bytes += count
        now = time.monotonic()
        if self._shows and now - self._told >= _SECOND_S:
            self._told = now
            click.echo(f"\r{size(self._bytes)} {self._verb}  ", err=True, nl=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._shows and self._told:
            click.echo("\r\x1b[K", err=True, nl=False)


@click.command(help="Share environment layers through a registry.")
@click.argument("repository", metavar="REGISTRY/NAME", required=False)
@click.option("--clear", is_flag=True, help="Share them no longer.")
@changes
@common
def cache(
    repository: str | None, clear: bool, dry_run: bool, as_json: bool, workspace: str | None
) -> None:
    """Sets, clears or shows where this workspace finds and leaves environment layers."""
    from serve.workspace import Workspace

    if repository and clear:
        raise click.UsageError("Give REGISTRY/NAME or --clear, not both.")
    if repository:
        from serve.distribution.reference import parse_reference

        repository = parse_reference(repository).name
    with Workspace(workspace) as opened:
        if (repository or clear) and not dry_run:
            opened.packages.cache = repository or ""
        found = (repository or "") if repository or clear else opened.packages.cache
    show({"cache": found or None}, found or "Environment layers are not shared.", as_json=as_json)
