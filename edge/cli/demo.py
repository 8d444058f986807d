"""The command `fieldpost fleet demo`."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from edge.cli.needs import require_fleet
from scoring.commands.output import note
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from edge.demo.brokers import Kind
    from edge.demo.story import Outcome, Screen


@click.command(
    help="Watch a rollout halt by itself: a broker, a controller, five devices, in a minute."
)
@click.option(
    "--broker",
    type=click.Choice(["auto", "mosquitto", "amqtt"]),
    default="auto",
    show_default=True,
    help="Which broker to start; auto: Mosquitto where it is on this machine, else amqtt.",
)
@click.option("--quick", is_flag=True, help="As fast as it goes: nothing to watch.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, at the end.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def demo(broker: str, quick: bool, as_json: bool) -> None:
    """Everything is in a temporary folder, and has ended when this ends, by Ctrl-C as well."""
    import msgspec

    require_fleet()
    from edge.demo import story

    logging.basicConfig(level=logging.ERROR)
    kind = _kind(broker)
    pace = story.Pace(0.05, 0.5) if quick else story.Pace()
    with _ending(), _folder() as folder, _screen(as_json) as screen:
        outcome = story.play(kind, folder, screen, pace)
    print_out(msgspec.to_builtins(outcome), _describe(outcome), as_json=as_json)
    if not outcome.as_told:
        raise click.exceptions.Exit(1)


def _kind(broker: str) -> Kind:
    from edge.demo import brokers

    if broker == "mosquitto":
        return "mosquitto"
    return "amqtt" if broker == "amqtt" else brokers.choose()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fieldpost-demo-") as name:
        yield Path(name)


@contextlib.contextmanager
def _screen(as_json: bool) -> Iterator[Screen]:
    from edge.demo import view

    if as_json or not sys.stdout.isatty():
        yield view.Sentences(note)
    else:
        with view.moving() as screen:
            yield screen


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: with all that it has started."""

    def end(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe(outcome: Outcome) -> str:
    states = ", ".join(f"{one['id']} {one['state']}" for one in outcome.rollouts)
    lines = [f"{states}, after {outcome.seconds:.0f} s."]
    lines += [f"  {one['name']}: version {one['version']}" for one in outcome.devices]
    return "\n".join(lines)
