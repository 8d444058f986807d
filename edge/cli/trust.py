"""The commands `fieldpost fleet trust …`: who signs, and what may run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge.security.place import FOLDER_VARIABLE, PASSWORD_VARIABLE, password
from scoring.commands import output

if TYPE_CHECKING:
    from edge.security.fleet import FleetSecurity
    from edge.security.keys import SigningKey
    from edge.workspace import Workspace


Function = TypeVar("Function", bound=Callable[..., Any])


def common(function: Function) -> Function:
    """Adds the options that all of these commands have."""
    folder = click.option(
        "--folder",
        type=click.Path(path_type=Path),
        envvar=FOLDER_VARIABLE,
        help="The controller's keys. Default: fleet/keys in the workspace.",
    )
    return output.common(folder(function))


def signing(function: Function) -> Function:
    """Adds `--key` and `--out`."""
    for option in (
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            help="Write the signed metadata here and do not publish it: others sign, too.",
        ),
        click.option(
            "--key",
            "key_files",
            multiple=True,
            required=True,
            type=click.Path(path_type=Path),
            help="A key file that signs. May be repeated.",
        ),
    ):
        function = option(function)
    return function


@contextmanager
def opened(workspace: str | None, folder: Path | None) -> Iterator[tuple[Workspace, FleetSecurity]]:
    """The workspace and the security of its fleet."""
    from edge.security.place import security_of
    from edge.workspace import open_workspace

    with open_workspace(workspace) as found:
        yield found, security_of(found, folder)


def read_keys(files: tuple[Path, ...]) -> list[SigningKey]:
    """The keys in files."""
    from edge.security import keys

    return [keys.read(file, password()) for file in files]


@click.group(help="Say who signs for a fleet, and what may run there.")
def trust() -> None:
    """The group `fieldpost fleet trust`."""


@trust.command(help="Make a fleet's keys and its first signed metadata.")
@click.option(
    "--keys",
    "offline",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the root's and the targets' keys go: a folder to take away from the controller.",
)
@click.option("--root-keys", default=3, show_default=True, help="How many root keys.")
@click.option("--threshold", default=2, show_default=True, help="How many of them have to sign.")
@click.option(
    "--authority",
    type=(click.Path(path_type=Path), click.Path(path_type=Path)),
    default=None,
    metavar="CERTIFICATE KEY",
    help="Your own CA, in PEM. Default: one is made.",
)
@output.changes
@common
def init(
    offline: Path,
    root_keys: int,
    threshold: int,
    authority: tuple[Path, Path] | None,
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Makes all keys."""
    with opened(workspace, folder) as (_, security):
        if dry_run:
            text = f"Would make {root_keys} root keys and one for targets in {offline}, and the"
            text += f" controller's in {security.folder}."
            output.show({"offline": offline, "online": security.folder}, text, as_json=as_json)
            return
        own = _read_authority(*authority) if authority else None
        made = security.init(offline, root_keys=root_keys, threshold=threshold, authority=own)
    names = "\n".join(f"  {path}" for path in made.offline)
    text = f"Made the keys of the fleet. {made.threshold} of {root_keys} root keys have to sign.\n"
    text += f"Take these away from the controller, to different places, and keep copies:\n{names}\n"
    text += f"The controller keeps those in {security.folder}."
    if not password():
        text += f"\nThe files are not encrypted: {PASSWORD_VARIABLE} was not set."
    document = {
        "offline": list(made.offline),
        "online": list(made.online),
        "threshold": made.threshold,
        "encrypted": bool(password()),
    }
    output.show(document, text, as_json=as_json)


def _read_authority(certificate: Path, key: Path) -> Any:
    from edge.security import keys
    from edge.security.authority import Authority, read_certificates

    numbers = keys.load_private(keys.read_file(key), key, password())
    return Authority(read_certificates(keys.read_file(certificate)), numbers)


@trust.command(help="Sign that a package may run on devices, as the next release of its name.")
@click.argument("package")
@click.option("--name", help="Of the line of releases. Default: the package's own.")
@click.option("--release", default=0, help="The counter. Default: the next.")
@signing
@output.changes
@common
def sign(
    package: str,
    name: str | None,
    release: int,
    key_files: tuple[Path, ...],
    out: Path | None,
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Permits PACKAGE."""
    with opened(workspace, folder) as (found, security):
        digest = found.registry.packages.get(package).digest
        content = found.registry.blobs.read_bytes(digest)
        packages = security.read_package(content, digest)
        line = name or _line_of(package)
        made, signed = security.permit(
            packages, name=line, signers=read_keys(key_files), release=release
        )
        document = {"package": digest, "name": line, "release": made.release}
        text = f"Release {made.release} of {line} may run: {digest}"
        _finish(security, document, text, targets=signed, out=out, dry_run=dry_run, as_json=as_json)


def _line_of(package: str) -> str:
    name = package.split("@", 1)[0].rsplit(":", 1)[0]
    if not name or name == "sha256":
        raise click.UsageError("A digest says no name: give --name.")
    return name


@trust.command(help="Sign that releases of NAME below a counter may no longer run.")
@click.argument("name")
@click.option("--below", required=True, type=int, help="The lowest release that may still run.")
@signing
@output.changes
@common
def withdraw(
    name: str,
    below: int,
    key_files: tuple[Path, ...],
    out: Path | None,
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Withdraws old releases."""
    with opened(workspace, folder) as (_, security):
        gone, signed = security.withdraw(name, below, signers=read_keys(key_files))
        document: dict[str, Any] = {"name": name, "lowest": below, "withdrawn": gone}
        text = f"Releases of {name} below {below} may no longer run: {len(gone)} withdrawn."
        _finish(security, document, text, targets=signed, out=out, dry_run=dry_run, as_json=as_json)


@trust.command(help="Give a role other keys: all that it has from now on.")
@click.argument("role", type=click.Choice(["root", "targets", "snapshot", "timestamp", "director"]))
@click.option(
    "--new",
    "new_files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="A new key file, made where it is missing; an old one to keep. May be repeated.",
)
@signing
@output.changes
@common
def rotate(
    role: str,
    new_files: tuple[Path, ...],
    key_files: tuple[Path, ...],
    out: Path | None,
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Rotates the keys of ROLE."""
    from edge.security.fleet import ONLINE

    if role in ONLINE and (len(new_files) != 1 or out is not None):
        raise click.UsageError(f"{role} has one key, which the controller keeps; give one --new.")
    with opened(workspace, folder) as (_, security):
        signers = read_keys(key_files)
        new = [_read_or_make(file, dry_run=dry_run) for file in new_files]
        root, targets = security.rotate(role, new, signers=signers)  # type: ignore[arg-type]
        document = {"role": role, "keys": [key.keyid for key in new]}
        if role in ONLINE and not dry_run:
            security.replace_online(role, new[0])  # type: ignore[arg-type]
        text = f"{role} has {len(new)} new key(s)."
        _finish(
            security,
            document,
            text,
            root=root,
            targets=targets,
            out=out,
            dry_run=dry_run,
            as_json=as_json,
        )


def _read_or_make(file: Path, *, dry_run: bool) -> SigningKey:
    from edge.security import keys

    if file.exists():
        return keys.read(file, password())
    made = keys.SigningKey.generate()
    if not dry_run:
        keys.write(made, file, password())
    return made


@trust.command(name="add-signature", help="Sign metadata that others have signed, too.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "key_files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="A key file that signs. May be repeated.",
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def add_signature(file: Path, key_files: tuple[Path, ...], as_json: bool) -> None:
    """Adds signatures to FILE, where neither workspace nor network is."""
    from edge.security.drafts import add_signatures
    from edge.security.keys import read_file
    from scoring import durable

    signers = read_keys(key_files)
    durable.write_bytes(file, add_signatures(read_file(file), signers))
    document = {"file": file, "keys": [key.keyid for key in signers]}
    output.show(document, f"Signed {file} with {len(signers)} key(s).", as_json=as_json)


@trust.command(help="Publish metadata that was signed elsewhere, or renew that it is fresh.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@output.changes
@common
def publish(
    files: tuple[Path, ...],
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publishes FILES."""
    given = {}
    for file in files:
        kind, content = _read_metadata(file)
        given[kind] = content
    with opened(workspace, folder) as (_, security):
        _finish(
            security,
            {"published": sorted(given)},
            "",
            root=given.get("root", b""),
            targets=given.get("targets", b""),
            dry_run=dry_run,
            as_json=as_json,
        )


def _read_metadata(file: Path) -> tuple[str, bytes]:
    from edge.security.repository import kind_of
    from scoring import durable

    with durable.storage_errors(str(file)):
        content = file.read_bytes()
    kind = kind_of(content)
    if kind not in {"root", "targets"}:
        raise click.UsageError(f"{file} is {kind} metadata: the controller makes that itself.")
    return kind, content


def _finish(
    security: FleetSecurity,
    document: dict[str, Any],
    text: str,
    *,
    root: bytes = b"",
    targets: bytes = b"",
    out: Path | None = None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publishes, or writes what others have to sign, too."""
    if dry_run:
        document, text = document | {"dry_run": True}, f"Would do: {text or 'publish'}"
    elif out is not None:
        files = _write_out(out, {"root": root, "targets": targets})
        document = document | {"files": files}
        text += "\nNot published yet: " + ", ".join(str(file) for file in files)
    else:
        versions = security.publish(root=root, targets=targets).versions()
        document = document | {"versions": versions}
        numbers = ", ".join(f"{role} {version}" for role, version in versions.items())
        text = f"{text}\nPublished: {numbers}.".strip()
    output.show(document, text, as_json=as_json)


def _write_out(out: Path, contents: dict[str, bytes]) -> list[Path]:
    from scoring import durable

    given = {kind: content for kind, content in contents.items() if content}
    files = {
        kind: out if len(given) == 1 else out.with_name(f"{out.stem}.{kind}.json") for kind in given
    }
    for kind, file in files.items():
        durable.write_bytes(file, given[kind])
    return list(files.values())


@trust.command(help="Show who signs, until when, and what may run.")
@common
def show(workspace: str | None, folder: Path | None, as_json: bool) -> None:
    """Shows the signed metadata."""
    from edge.security.repository import describe

    with opened(workspace, folder) as (_, security):
        document = describe(security.repository.trusted())
    lines = [
        f"{role:<10} version {one['version']:<6} until {one['expires']}  "
        f"{one['threshold']} of {len(one['keys'])} key(s)"
        for role, one in document["roles"].items()
    ]
    lines.append(f"director   {', '.join(key[:16] for key in document['directors'])}")
    lines += [
        f"{one['name']} release {one['release']}: {package}"
        for package, one in document["packages"].items()
    ]
    output.show(document, "\n".join(lines), as_json=as_json)
