"""The command `fieldpost-agent`: run, join, status. The standard library reads its arguments."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

from scoring.errors import FieldpostError, UsageError

if TYPE_CHECKING:
    import argparse

    from edge.agent.config import Config
    from edge.security.identity import Identity

_STATE: Final = "/var/lib/fieldpost-agent"
_USAGE, _FAILED = 2, 1
_CLOCK_S: Final = 60.0
_OURS: Final = ("edge", "scoring", "serve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit status."""
    # Not argparse's own, which would hold on to all of that module.
    parsed = SimpleNamespace(**vars(_parser().parse_args(arguments)))
    level = logging.DEBUG if parsed.verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        return int(parsed.command(parsed))
    except FieldpostError as error:
        print(f"fieldpost-agent: {error.message} {error.hint}".rstrip(), file=sys.stderr)  # noqa: T201
        return _USAGE if isinstance(error, UsageError) else _FAILED
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] in _OURS:
            raise
        print(_missing(error.name), file=sys.stderr)  # noqa: T201
        return _FAILED


def _missing(module: str) -> str:
    package = module.partition(".")[0]
    return (
        f"fieldpost-agent: It needs the package {package}, which is not installed. "
        "Install what an agent needs: pip install 'fieldpost[agent]'"
    )


def _parser() -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 - forgotten again by what runs for long

    parser = argparse.ArgumentParser(
        prog="fieldpost-agent", description="Runs the packages of a fleet on this device."
    )
    parser.add_argument("--verbose", action="store_true", help="tell more in the log")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run what the fleet's controller wishes for")
    run.set_defaults(command=_run)
    join = commands.add_parser("join", help="enrol this device with a token")
    tokens = join.add_mutually_exclusive_group(required=True)
    tokens.add_argument("--token-file", help="a file that holds the token; - for standard input")
    tokens.add_argument("--token", help="the token itself, where nobody else sees processes")
    join.add_argument("--url", required=True, help="of the controller, https://HOST:PORT")
    join.set_defaults(command=_join)
    status = commands.add_parser("status", help="show what the journal says")
    status.set_defaults(command=_status)
    for each in (run, join, status):
        each.add_argument("--state", default="", help=f"the agent's folder (default {_STATE})")
        each.add_argument("--config", default="", help="its settings (default STATE/agent.toml)")
    return parser


def _config_of(parsed: SimpleNamespace) -> Config:
    import msgspec  # noqa: PLC0415 - help needs none of it

    from edge.agent import config  # noqa: PLC0415

    if not parsed.config:
        return config.of_folder(Path(parsed.state or _STATE))
    found = config.read(Path(parsed.config))
    return msgspec.structs.replace(found, state=parsed.state) if parsed.state else found


def _run(parsed: SimpleNamespace) -> int:
    from edge.agent import memory  # noqa: PLC0415 - help needs none of it

    memory.stay_small()  # before there is a thread
    memory.forget("argparse", "gettext")
    from edge.agent.device import Device  # noqa: PLC0415

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with Device(_config_of(parsed)):
        stopping.wait()
    return 0


def _join(parsed: SimpleNamespace) -> int:
    from edge.agent.device import IDENTITY  # noqa: PLC0415
    from edge.security import joining  # noqa: PLC0415

    state = Path(_config_of(parsed).state)
    own = joining.join(parsed.url, _token(parsed), state / IDENTITY)
    print(f"This device is {own.site}/{own.device}.")  # noqa: T201 - what was asked for
    _learn_time(parsed.url, own, state)
    return 0


def _learn_time(url: str, own: Identity, state: Path) -> None:
    """Takes the fleet's time along, so that a clock that lies is known from the first start on."""
    from edge.agent.clock import Clock  # noqa: PLC0415
    from edge.agent.device import TRUST, learn_time  # noqa: PLC0415
    from edge.agent.journal import Journal  # noqa: PLC0415
    from edge.security.trust import DeviceTrust  # noqa: PLC0415
    from scoring import durable  # noqa: PLC0415

    try:
        durable.make_folder(state / TRUST, mode=0o700)
        trust = DeviceTrust(state / TRUST, site=own.site, device=own.device, root=own.root)
        with contextlib.closing(Journal(state)) as journal:
            ahead_s = learn_time(url, own, trust, Clock(journal))
    except (FieldpostError, OSError) as error:  # it is asked again when the agent runs
        logging.getLogger(__name__).info("the time was not learnt: %s", error)
        return
    if abs(ahead_s) > _CLOCK_S:
        which = "ahead of" if ahead_s > 0 else "behind"
        print(  # noqa: T201 - what was asked for
            f"Its clock is {abs(ahead_s):.0f} s {which} the fleet's time: set it."
        )


def _token(parsed: SimpleNamespace) -> str:
    if parsed.token:
        return str(parsed.token)
    path = parsed.token_file
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", where=path) from error
    return text.strip()


def _status(parsed: SimpleNamespace) -> int:
    from edge.agent.journal import FILE  # noqa: PLC0415

    state = json.loads(_state_of(Path(_config_of(parsed).state).absolute() / FILE))
    document = {
        "generation": (state.get("desired") or {}).get("generation", 0),
        "modules": state.get("tracks", {}),
    }
    print(json.dumps(document, indent=2, sort_keys=True))  # noqa: T201 - what was asked for
    return 0


def _state_of(journal: Path) -> str:
    """What a journal says, beside the agent that has it open."""
    import sqlite3  # noqa: PLC0415

    try:
        with contextlib.closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT value FROM rows WHERE key = 'state'").fetchone()
    except sqlite3.Error as error:
        raise UsageError(
            f"{journal.parent} is no agent's folder: {error}.", hint="Name it with --state."
        ) from error
    return str(row[0]) if row else "{}"


if __name__ == "__main__":
    sys.exit(main())
