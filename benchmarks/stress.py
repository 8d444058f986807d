"""Many connections for a long time: no error, and no growth of memory after the first minute.

    python -m benchmarks.stress [--minutes 10] [--connections 200]

Prints one line of JSON; exits with 1 where an answer was no 200, or memory grew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import contenders, load
from benchmarks.features import Features
from benchmarks.machine import leave_server_core, on_load_core
from benchmarks.models import make_iris, make_pixels
from benchmarks.payloads import Ask
from benchmarks.running import Running, Site, http_labels

SETTLE_S = 60.0
ALLOWED_MIB = 1.0
_SAMPLE_S = 1.0
_LEAST_SAMPLES = 5
_PART = 5
_MOST_LOG_BYTES = 256 << 20


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        seconds: How long it ran.
        connections: At the same time.
        kinds: What was asked in turn.
        requests: How many.
        rate: Per second.
        errors: What wrk saw that was no 200; empty for nothing.
        settled_mib: Memory when the settling was over.
        end_mib: Memory at the end.
        features: What was on in the server.
        ok: No error and no growth.
    """

    seconds: float
    connections: int
    kinds: list[str]
    requests: int
    rate: float
    errors: str
    settled_mib: float
    end_mib: float
    features: dict[str, bool]
    ok: bool


def growth(samples: Sequence[float], settle: int) -> tuple[float, float]:
    """Memory after the settling and at the end, each the median of a fifth of the rest.

    Args:
        samples: In MiB, one a second.
        settle: How many of them do not count.
    """
    rest = samples[min(settle, len(samples) // 2) :]
    part = max(_LEAST_SAMPLES, len(rest) // _PART)
    return statistics.median(rest[:part]), statistics.median(rest[-part:])


def mix_script(asks: Sequence[Ask], folder: Path) -> Path:
    """A script for wrk that sends several requests in turn."""
    lines = ["local asks, turn = {}, 0", "function init(args)"]
    for number, ask in enumerate(asks, 1):
        body = folder / f"mix-{number}.body"
        body.write_bytes(ask.body)
        headers = ", ".join(f'["{name}"] = "{value}"' for name, value in ask.headers.items())
        lines += [
            f'  local file = io.open("{body}", "rb")',
            f'  asks[{number}] = wrk.format("POST", "{ask.path}", {{{headers}}}, file:read("*a"))',
            "  file:close()",
        ]
    lines += [
        "end",
        "function request()",
        "  turn = turn % #asks + 1",
        "  return asks[turn]",
        "end",
    ]
    script = folder / "mix.lua"
    script.write_text("\n".join(lines) + "\n")
    return script


def sampled(command: Sequence[str], server: Running, log: Path) -> tuple[str, list[float]]:
    """What the command printed, and the server's memory once a second meanwhile."""
    samples = []
    with subprocess.Popen(on_load_core(command), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        while running.poll() is None:
            samples.append(server.process.memory_mib())
            _rotate(log)
            time.sleep(_SAMPLE_S)
        return running.stdout.read(), samples


def _rotate(log: Path) -> None:
    """Takes a long access log away, as logrotate does: it is not what is measured."""
    if log.exists() and log.stat().st_size > _MOST_LOG_BYTES:
        log.replace(log.with_suffix(".old"))


def stress(site: Site, features: Features, seconds: float, connections: int) -> Outcome:
    """Starts our server and asks it for some time."""
    ours = contenders.ours(features.environment, features.headers)
    server = site.start(ours, "score")
    try:
        asks = [ours.asks[name] for name in ("score", "v2") if _works(server, ours.asks[name])]
        script = mix_script(asks, site.folder)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s"]
        text, samples = sampled(
            [*command, "-s", str(script), server.url], server, features.access_log
        )
        on = features.found_on(server.port)
    finally:
        server.process.end()
    return judge(text, samples, seconds, connections, [ask.name for ask in asks], on)


def _works(server: Running, ask: Ask) -> bool:
    try:
        return bool(http_labels(server.port, ask))
    except Exception as error:  # noqa: BLE001 - whatever it is, this kind is left out by name
        sys.stderr.write(f"left out: {ask.name}: {error}\n")
        return False


def judge(
    text: str,
    samples: Sequence[float],
    seconds: float,
    connections: int,
    kinds: list[str],
    features: dict[str, bool],
) -> Outcome:
    """Reads wrk's report and the samples."""
    errors, rate, count = "", 0.0, 0
    try:
        measured = load.parse_wrk(text)
        rate, count = measured.rate, measured.count
    except load.LoadError as error:
        errors = str(error)
    settled, end = growth(samples, round(SETTLE_S / _SAMPLE_S))
    return Outcome(
        seconds=seconds,
        connections=connections,
        kinds=kinds,
        requests=count,
        rate=rate,
        errors=errors,
        settled_mib=settled,
        end_mib=end,
        features=features,
        ok=not errors and end - settled <= ALLOWED_MIB,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stress", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=200)
    given = parser.parse_args(arguments)
    load.install()
    leave_server_core()
    with tempfile.TemporaryDirectory(prefix="fieldpost-stress-") as name:
        folder = Path(name)
        site = Site(folder, {"iris": make_iris(folder), "pixels": make_pixels(folder)})
        features = Features.make(folder)
        try:
            outcome = stress(site, features, given.minutes * 60, given.connections)
        finally:
            features.close()
    print(json.dumps(asdict(outcome)))
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
