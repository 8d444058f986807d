"""The commands `fieldpost score`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from scoring.errors import ModelNotFoundError
from serve.cli.output import common, write_json


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
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the answer.")
@click.option(
    "--wait", default=2.0, show_default=True, help="Seconds to try while nothing answers there."
)
@common
def score(
    target: str,
    data: str,
    headers: tuple[str, ...],
    timeout: float,
    wait: float,
    as_json: bool,  # noqa: ARG001 - the answer is JSON in either case
    workspace: str | None,
) -> None:
    """Sends the body to a deployment (by name) or to a server (by URL)."""
    from serve.client import score_url

    body = _read(data)
    url = target if "://" in target else _address(target, workspace)
    write_json(score_url(url, body, headers=_headers(headers), timeout_s=timeout, retry_s=wait))


def _address(name: str, workspace: str | None) -> str:
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        return opened.deployments.get(name).url


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
