"""The commands `fieldpost package sign|verify|sbom|provenance` and `fieldpost signing-key …`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from scoring.commands.output import changes, common, fields, write_line
from scoring.commands.output import show as print_out
from scoring.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from serve.provenance.checks import Verdict
    from serve.provenance.keys import PublicKey
    from serve.workspace.packages import Packages

PASSWORD = "COSIGN_PASSWORD"  # noqa: S105 - the name of a variable
_FORMATS = ("spdx", "cyclonedx")
_key_option = click.option(
    "--key",
    "key_files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A public key (cosign.pub) that must have signed; of several, one.",
)


def _keyfiles() -> ModuleType:
    """The module that reads key files, which needs libraries that are optional."""
    try:
        from serve.provenance import keyfiles
    except ImportError as error:
        raise MissingDependencyError(
            f"Signing keys need the package {error.name!r}, which is not installed.",
            hint="Install it: pip install 'fieldpost[provenance]'.",
        ) from error
    return keyfiles


def public_keys(files: tuple[Path, ...]) -> tuple[PublicKey, ...]:
    """The keys of these files; none are needed for none."""
    if not files:
        return ()
    keyfiles = _keyfiles()
    return tuple(key for file in files for key in keyfiles.load_public(file))


def _is_remote(ref: str) -> bool:
    """Whether it names an image in a registry: a package of the workspace has no slash."""
    return "/" in ref


def _ask_password() -> str:
    return _password(confirm=False)


def _password(*, confirm: bool) -> str:
    """The password of a key file: from the variable that cosign reads, else asked for."""
    given = os.environ.get(PASSWORD)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise UsageError(
            "The key's password is not known, and there is no terminal to ask for it.",
            hint=f"Set {PASSWORD}; an empty one means a key without a password.",
        )
    prompt = "Password for the private key"
    return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))


_plain_http = click.option(
    "--plain-http", is_flag=True, help="Ask the registry without TLS, wherever it is."
)


@click.command(help="Sign a package, here or in a registry, as cosign does.")
@click.argument("ref")
@click.option(
    "--key",
    "key_file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The private key: cosign.key, or PEM. Its password: $COSIGN_PASSWORD, else asked for.",
)
@click.option(
    "--reference",
    metavar="REGISTRY/NAME",
    help="What the signature calls it. Default: where it is, or the model's name.",
)
@_plain_http
@changes
@common
def sign(
    ref: str,
    key_file: Path,
    reference: str | None,
    plain_http: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Signs REF: a package of the workspace, or REGISTRY/NAME:TAG (or @DIGEST)."""
    from serve.workspace import Workspace

    key = _keyfiles().load_private(key_file, _ask_password)
    if _is_remote(ref) and reference:
        raise click.UsageError("--reference is for packages of the workspace.")
    with Workspace(workspace) as opened:
        packages = opened.packages
        if dry_run:
            verdict = _look(packages, ref, plain_http=plain_http)
            signed: tuple[str, ...] = (verdict.digest,)
        elif _is_remote(ref):
            signed = packages.sign_image(ref, key, plain_http=plain_http)
        else:
            signed = packages.sign(ref, key, reference=reference or "")
    document = {"signed": signed, "key": key.public.fingerprint, "dry_run": dry_run}
    verb = "Would sign" if dry_run else "Signed"
    text = "\n".join([f"{verb} with {key.public.fingerprint}", *signed])
    print_out(document, text, as_json=as_json)


def _look(
    packages: Packages,
    ref: str,
    keys: tuple[PublicKey, ...] = (),
    *,
    whole: bool = False,
    plain_http: bool,
) -> Verdict:
    if _is_remote(ref):
        return packages.verify_image(ref, keys, whole=whole, plain_http=plain_http)
    return packages.verify(ref, keys)


@click.command(help="Check every digest, signature and document of a package.")
@click.argument("ref")
@_key_option
@click.option(
    "--no-layers",
    is_flag=True,
    help="Of an image in a registry, do not download the layers to hash them.",
)
@_plain_http
@common
def verify(
    ref: str,
    key_files: tuple[Path, ...],
    no_layers: bool,
    plain_http: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Checks REF: a package of the workspace, or REGISTRY/NAME:TAG (or @DIGEST).

    Without --key only that its bytes are whole, and that what is attached speaks of it.
    """
    from serve.workspace import Workspace

    keys = public_keys(key_files)
    with Workspace(workspace) as opened:
        verdict = _look(opened.packages, ref, keys, whole=not no_layers, plain_http=plain_http)
    document: dict[str, Any] = msgspec.to_builtins(verdict)
    print_out(document | {"verified": True}, _describe(verdict), as_json=as_json)


def _describe(verdict: Verdict) -> str:
    count = verdict.signatures
    unchecked = f"{count} signature{'s' if count > 1 else ''}, not checked: give --key"
    return fields(
        [
            ("whole", verdict.digest),
            ("signed by", "\n".join(verdict.keys) or (unchecked if count else "")),
            ("attested", "\n".join(verdict.attestations)),
            ("attached", "\n".join(verdict.documents)),
        ]
    )


@click.command(help="Print what is in a package: an SBOM in SPDX or CycloneDX.")
@click.argument("ref")
@click.option(
    "--format",
    "kind",
    type=click.Choice(_FORMATS),
    default="spdx",
    show_default=True,
    help="SPDX 2.3 or CycloneDX 1.6, both as JSON.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it to a file instead of stdout.",
)
@common
def sbom(ref: str, kind: str, output: Path | None, as_json: bool, workspace: str | None) -> None:
    """Prints the SBOM of REF, a package of the workspace; it is the same each time."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        found = opened.packages.documents(ref)
    _put_out(found.spdx if kind == "spdx" else found.cyclonedx, output, as_json=as_json)


@click.command(help="Print from what and when a package was built (SLSA).")
@click.argument("ref")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it to a file instead of stdout.",
)
@common
def provenance(ref: str, output: Path | None, as_json: bool, workspace: str | None) -> None:
    """Prints the in-toto statement of REF with its SLSA provenance."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        content = opened.packages.provenance(ref)
    _put_out(content, output, as_json=as_json)


def _put_out(content: bytes, output: Path | None, *, as_json: bool) -> None:
    from scoring import durable

    if output is None:
        write_line(msgspec.json.format(content, indent=2).decode())
        return
    durable.write_bytes(output, content)
    print_out({"file": str(output), "size": len(content)}, str(output), as_json=as_json)


@click.command(help="Make a pair of keys to sign packages with, as cosign reads them.")
@click.option(
    "-o",
    "--output",
    "prefix",
    type=click.Path(path_type=Path),
    default=Path("cosign"),
    show_default=True,
    help="Writes PREFIX.key and PREFIX.pub.",
)
@changes
@common
def create(
    prefix: Path,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,  # noqa: ARG001 - every command has it
) -> None:
    """Makes a pair of keys: PREFIX.key, encrypted, for who signs, PREFIX.pub for who verifies."""
    keyfiles = _keyfiles()
    paths = keyfiles.pair_paths(prefix)
    fingerprint = ""
    if not dry_run:
        from serve.provenance.keys import PrivateKey

        key = PrivateKey.generate()
        keyfiles.write_pair(key, _password(confirm=True), prefix)
        fingerprint = key.public.fingerprint
    document = {"private": str(paths[0]), "public": str(paths[1]), "fingerprint": fingerprint}
    verb = "Would write" if dry_run else "Wrote"
    text = f"{verb} {paths[0]} (keep it secret) and {paths[1]}\n{fingerprint}".rstrip()
    print_out(document, text, as_json=as_json)


@click.command(help="Show the fingerprints of public keys.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@common
def show(
    files: tuple[Path, ...],
    as_json: bool,
    workspace: str | None,  # noqa: ARG001 - every command has it
) -> None:
    """Shows what tells the keys of these files apart."""
    keyfiles = _keyfiles()
    found = [
        {"file": str(file), "fingerprint": key.fingerprint}
        for file in files
        for key in keyfiles.load_public(file)
    ]
    text = "\n".join(f"{each['fingerprint']}  {each['file']}" for each in found)
    print_out({"keys": found}, text, as_json=as_json)
