"""wrk and h2load, and what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import on_load_core
from benchmarks.payloads import Ask

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}
_GRACE_S = 60


class LoadError(Exception):
    """The load generator is not there, or saw errors."""


class TooSlowError(LoadError):
    """This time the rate that was wanted could not be kept: there is nothing to read from it."""


@dataclass(frozen=True)
class Measured:
    """What one run of a load generator saw.

    Attributes:
        rate: Answers per second.
        count: Answers.
        p50: Of the latency, in seconds; NaN where it is not told.
        p99: The same.
    """

    rate: float
    count: int
    p50: float = float("nan")
    p99: float = float("nan")


def install() -> None:
    """Installs the load generators that are missing, where this machine allows it."""
    missing = [package for tool, package in _PACKAGES.items() if not shutil.which(tool)]
    if missing and os.getuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install_them = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing]
        for command in (["apt-get", "update", "-qq"], install_them):
            subprocess.run(command, env=environment, check=False, **quiet)  # type: ignore[call-overload]


def wrk(url: str, ask: Ask, folder: Path, *, connections: int = 16, seconds: float = 3) -> Measured:
    """POSTs one request again and again.

    Raises:
        LoadError: wrk is missing, or not every answer was a 200.
    """
    script = write_script(ask, folder)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
    return parse_wrk(_run([*command, "-s", str(script), url + ask.path], seconds))


def write_script(ask: Ask, folder: Path) -> Path:
    """The request in the words of wrk; the body stays a file of its own."""
    body = folder / f"{ask.name}.body"
    body.write_bytes(ask.body)
    lines = [f'local file = io.open("{body}", "rb")', 'wrk.body = file:read("*a")', "file:close()"]
    lines.append('wrk.method = "POST"')
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in ask.headers.items()]
    script = folder / f"{ask.name}.lua"
    script.write_text("\n".join(lines) + "\n")
    return script


def parse_wrk(text: str) -> Measured:
    """Reads wrk's report.

    Raises:
        LoadError: It is no report, or tells of errors.
        TooSlowError: There was not one answer, and no time-out either: wrk itself did not run.
    """
    for complaint in ("Non-2xx", "Socket errors"):
        found = re.search(rf"{complaint}.*", text)
        if found:
            raise LoadError(found[0].strip())
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    count = re.search(r"(\d+) requests in", text)
    if rate is None or count is None:
        raise LoadError(f"wrk got no answer: {' '.join(text.split())[-200:]}")
    if int(count[1]) == 0:
        raise TooSlowError("wrk got no answer in its time")
    return Measured(float(rate[1]), int(count[1]), _percentile(text, "50"), _percentile(text, "99"))


def _percentile(text: str, percent: str) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    return float(found[1]) * _SECONDS[found[2]] if found else float("nan")


def h2load(url: str, ask: Ask, folder: Path, *, streams: int = 16, seconds: float = 3) -> Measured:
    """Calls a gRPC method again and again, on one connection with several streams.

    Raises:
        LoadError: h2load is missing, or not every call was answered with a message.
    """
    body = folder / f"{ask.name}.body"
    body.write_bytes(ask.body)
    headers = [part for name, value in ask.headers.items() for part in ("-H", f"{name}: {value}")]
    timing = ["-D", f"{max(1, round(seconds))}"]
    command = ["h2load", "-t1", "-c1", f"-m{streams}", *timing, *headers, "-d", str(body)]
    return parse_h2load(_run([*command, url + ask.path], seconds), least_bytes=ask.answer_bytes)


def parse_h2load(text: str, least_bytes: int = 0) -> Measured:
    """Reads h2load's report.

    Args:
        text: What it printed.
        least_bytes: What an answer has of data: an error of gRPC has none, and is a 200 to h2load.

    Raises:
        LoadError: It is no report, or tells of errors.
    """
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", text)
    done = re.search(
        r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed", text
    )
    data = re.search(r"traffic: .* \((\d+)\) data", text)
    if rate is None or done is None or data is None or int(done[1]) == 0:
        raise LoadError(f"h2load got no answer: {' '.join(text.split())[-200:]}")
    if int(done[2]) > 0:
        raise LoadError(f"{done[2]} of {done[1]} calls failed")
    if int(data[1]) < least_bytes * int(done[1]):
        raise LoadError("some calls were answered with an error")
    return Measured(float(rate[1]), int(done[1]))


def _run(command: list[str], seconds: float) -> str:
    if not shutil.which(command[0]):
        raise LoadError(f"{command[0]} is not installed (package {_PACKAGES[command[0]]})")
    try:
        finished = subprocess.run(
            on_load_core(command),
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"{command[0]} did not come to an end") from None
    if finished.returncode != 0:
        words = (finished.stderr or finished.stdout).strip()
        raise LoadError(f"{command[0]} failed: {words[-200:]}")
    return finished.stdout
