"""The commands `fieldpost key …`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scoring.commands.output import changes, common, note, table
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from serve.server.access.keychain import Keychain
    from serve.server.access.keys import Key, Scope

Function = TypeVar("Function", bound=Callable[..., Any])

_VARIABLE = "FIELDPOST_SERVER_API_KEYS"
_FILE = "api-keys.json"
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _file_option(function: Function) -> Function:
    return click.option(
        "--file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=_VARIABLE,
        help=f"The file of keys. Default: ${_VARIABLE}, else {_FILE} in the workspace's folder.",
    )(function)


class _Moment(click.ParamType[datetime]):
    """A date, a date with a time, or a span from now on such as 90d."""

    name = "90d|DATE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The moment that a text names."""
        if isinstance(value, datetime):
            return value
        now = datetime.now(UTC).replace(microsecond=0)
        seconds = _UNITS.get(value[-1:])
        try:
            if seconds is not None:
                moment = now + timedelta(seconds=int(value[:-1]) * seconds)
            else:
                moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"'{value}' is neither a span such as 90d or 12h nor a date.", param, ctx)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        if moment <= now:
            self.fail(f"'{value}' is over already.", param, ctx)
        return moment


@click.command(help="Make an API key; it is printed once.")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["infer", "metrics", "admin"]),
    default=["infer"],
    show_default=True,
    help="What it may do; may be repeated. admin loads and unloads models.",
)
@click.option("--model", "models", multiple=True, metavar="NAME", help="For this model only.")
@click.option("--expires", type=_Moment(), help="Until when it is taken. Default: for ever.")
@click.option("--rate", type=click.FloatRange(0), help="Requests a second; 0: no limit.")
@click.option("--burst", type=click.IntRange(1), help="Requests that may come at once.")
@_file_option
@changes
@common
def create(
    name: str,
    scopes: tuple[Scope, ...],
    models: tuple[str, ...],
    expires: datetime | None,
    rate: float | None,
    burst: int | None,
    file: Path | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Makes a key for NAME, whoever is to hold it."""
    chain = _keychain(file, workspace)
    key, text = chain.create(
        name,
        scopes=scopes,
        models=models or None,
        expires=expires,
        rate=rate,
        burst=burst,
        dry_run=dry_run,
    )
    _print_new(chain, key, text, dry_run=dry_run, as_json=as_json)


@click.command(help="Make a second key for a holder; both are taken.")
@click.argument("name")
@_file_option
@changes
@common
def rotate(
    name: str, file: Path | None, dry_run: bool, as_json: bool, workspace: str | None
) -> None:
    """Makes the successor of the key of NAME; 'key revoke' ends the old one."""
    chain = _keychain(file, workspace)
    before = [key.id for key in chain.list() if key.name == name and _state(key) == "active"]
    key, text = chain.rotate(name, dry_run=dry_run)
    _print_new(chain, key, text, dry_run=dry_run, as_json=as_json)
    note(f"The old one is taken until you end it: fieldpost key revoke {before[0]}")


def _print_new(chain: Keychain, key: Key, text: str, *, dry_run: bool, as_json: bool) -> None:
    document = _document(key) | {"file": str(chain.path)}
    if dry_run:
        del document["id"]
        note("Nothing was changed.")
        sentence = f"Would make a key for {key.name} in {chain.path}."
        print_out(document, sentence, as_json=as_json)
        return
    note(f"Made the key {key.id} for {key.name} in {chain.path}. It is shown this once:")
    print_out(document | {"key": text}, text, as_json=as_json)


@click.command(help="List API keys; their secrets are nowhere.")
@click.option("--all", "everything", is_flag=True, help="Those that are over, too.")
@_file_option
@common
def list_keys(everything: bool, file: Path | None, as_json: bool, workspace: str | None) -> None:
    """Lists the keys that are taken."""
    keys = [
        key for key in _keychain(file, workspace).list() if everything or _state(key) == "active"
    ]
    headings = ("ID", "NAME", "STATE", "SCOPES", "MODELS", "EXPIRES", "RATE")
    rows = [
        (
            key.id,
            key.name,
            _state(key),
            " ".join(key.scopes),
            "all" if key.models is None else " ".join(key.models),
            key.expires and key.expires.isoformat(),
            None if key.rate is None else f"{key.rate:g}/s",
        )
        for key in keys
    ]
    text = table(headings, rows) if rows else "There are no keys."
    print_out([_document(key) for key in keys], text, as_json=as_json)


@click.command(help="End an API key.")
@click.argument("id", metavar="ID")
@_file_option
@changes
@common
def revoke(
    id: str,  # noqa: A002 - the name of the argument
    file: Path | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Ends the key ID: servers refuse it within a second."""
    key = _keychain(file, workspace).revoke(id, dry_run=dry_run)
    if dry_run:
        note("Nothing was changed.")
    verb = "Would revoke" if dry_run else "Revoked"
    print_out(_document(key), f"{verb} {key.id} of {key.name}.", as_json=as_json)


def _keychain(file: Path | None, workspace: str | None) -> Keychain:
    from serve.server.access.keychain import Keychain

    if file is None:
        from serve.registry.location import resolve

        folder = resolve(workspace).folder
        if folder is None:
            raise click.UsageError(f"Say which file: --file, or ${_VARIABLE}.")
        file = folder / _FILE
    return Keychain(file)


def _state(key: Key) -> str:
    return key.state(datetime.now(UTC))


def _document(key: Key) -> dict[str, Any]:
    """A key without its hash."""
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(key)
    for secret in ("salt", "hash"):
        document.pop(secret, None)
    return document | {"scopes": list(key.scopes), "state": _state(key)}
