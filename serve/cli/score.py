"""The commands `fieldpost score`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scoring.commands.output import common, note, write_json
from scoring.errors import ModelNotFoundError

if TYPE_CHECKING:
    from serve.asking import Protocol
    from serve.workspace.reaching import Reached


@click.command(help="Send a scoring request and print the answer.")
@click.argument("target", metavar="NAME|URL")
@click.option(
    "-d",
    "--data",
    required=True,
    metavar="FILE|-|JSON",
    help="The request body: a file, - or JSON.",
)
@click.option("--header", "headers", multiple=True, metavar="NAME: VALUE", help="A request header.")
@click.option(
    "--api-key",
    envvar="FIELDPOST_API_KEY",
    metavar="KEY",
    help="Default: $FIELDPOST_API_KEY, which no list of processes shows.",
)
@click.option(
    "--protocol",
    type=click.Choice(["score", "v2", "grpc"]),
    default="score",
    show_default=True,
    help="v2, grpc: the Open Inference Protocol, as Triton and KServe have it.",
)
@click.option("--model", default="", metavar="NAME", help="Of a server of several models.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    help="Seconds to wait for the answer. Default: 60; with --later, until there is one.",
)
@click.option(
    "--timeout-ms",
    type=click.IntRange(1),
    help="After that time the server gives the request up.",
)
@click.option(
    "--wait", default=2.0, show_default=True, help="Seconds to try while nothing answers there."
)
@click.option("--later", is_flag=True, help="As a job: it survives restarts of server and client.")
@click.option(
    "--ca", default="", metavar="FILE", help="Authorities of https. Default: the usual ones."
)
@common
def score(
    target: str,
    data: str,
    headers: tuple[str, ...],
    api_key: str | None,
    protocol: Protocol,
    model: str,
    timeout: float | None,
    timeout_ms: int | None,
    wait: float,
    later: bool,
    ca: str,
    as_json: bool,  # noqa: ARG001 - the answer is JSON in either case
    workspace: str | None,
) -> None:
    """Sends the body to a deployment or an endpoint (by name) or to a server (by URL)."""
    from serve.asking import Asking, ask

    body = _read(data)
    with _reached(target, workspace) as found:
        found.route.require(protocol)
        how = Asking(
            protocol=protocol,
            model=model,
            headers=_headers(headers),
            api_key=api_key or "",
            timeout_s=timeout,
            retry_s=wait,
            timeout_ms=timeout_ms,
            later=later,
            ca=ca,
            certificate=found.certificate,
            accepted=lambda job: note(f"Accepted as {found.route.outside(job)}"),
        )
        write_json(ask(target if "://" in target else found.route.scoring, body, how))


@contextmanager
def _reached(target: str, workspace: str | None) -> Iterator[Reached]:
    """The URL of a deployment or an endpoint, and the file of a certificate of its own."""
    from serve.targets.base import Route
    from serve.workspace.reaching import Reached, reach

    if "://" in target:
        yield Reached(Route(target, target))
        return
    from serve.workspace import Workspace

    with Workspace(workspace) as opened, reach(opened, target) as found:
        yield found


def _headers(lines: tuple[str, ...]) -> dict[str, str]:
    result = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if not separator:
            raise click.BadParameter(f"'{line}' is not of the form NAME: VALUE.")
        result[name.strip()] = value.strip()
    return result


def _read(data: str) -> bytes:
    if data == "-":
        return sys.stdin.buffer.read()
    if data.lstrip()[:1] in ("{", "["):
        return data.encode()
    try:
        return Path(data.removeprefix("@")).read_bytes()
    except OSError as error:
        raise ModelNotFoundError(
            f"The request file {data!r} cannot be read: {error.strerror}.",
            hint="Give a file, '-' for standard input, or the JSON itself.",
        ) from error
