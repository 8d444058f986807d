"""The rows of the server's table: what is asked of whom, and what we have to reach."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import contenders as who
from benchmarks import load, rate, results, run_alone, stress, venvs
from benchmarks.contender import Contender
from benchmarks.features import Features
from benchmarks.machine import StartError
from benchmarks.results import Row
from benchmarks.running import Running, Site
from benchmarks.venvs import InstallError

READY_S = 0.6
MEMORY_MIB = 80.0
TAIL = 4.0
SCRIPT_PART = 0.1
_CONNECTIONS = 16
_KEPT = 0.97


@dataclass(frozen=True)
class Pace:
    """How often and how long each server is measured."""

    rounds: int = 5
    seconds: float = 2.0


@dataclass
class Bench:
    """Everything that the rows share."""

    site: Site
    features: Features
    pace: Pace
    minutes: float = 1.0

    @property
    def ours(self) -> Contender:
        return who.ours(self.features.environment, self.features.headers)

    @property
    def ours_plain(self) -> Contender:
        """Our server as it is where nothing is configured."""
        return replace(who.ours({}, {}), name="ours, nothing configured")

    def versions(self) -> dict[str, str]:
        """Of ourselves and of every peer that is installed."""
        known = results.versions("onnxruntime", "numpy", "uvloop", "httptools", "orjson")
        for peer in (*who.PEERS, who.BARE_GRPC):
            found = venvs.versions(peer.venv, peer.distributions)
            known |= {f"{peer.name}: {name}": version for name, version in found.items()}
        return known


def throughput(
    bench: Bench, work: str, title: str, targets: Mapping[str, float], peers: Sequence[Contender]
) -> Row:
    """Requests per second of ours and the peers, and the part or multiple that is wanted."""
    processor: dict[str, float] = {}
    with bench.site.fresh().running([bench.ours, *peers], work) as servers:
        best = bench.site.best(
            servers, bench.pace.rounds, lambda server: _load(bench, server, work, processor)
        )
        notes = _features(bench, servers)
    mine = best.pop("ours", 0.0)
    row = Row(title, "requests/s", mine, _targets(targets), mine > 0, best, notes=notes)
    row.processor = processor
    return _finish(
        row, bench, peers, lambda name: mine >= targets.get(name, 0) * best[name], targets
    )


def _load(bench: Bench, server: Running, work: str, processor: dict[str, float]) -> float:
    """Answers per second, and into `processor` the best per second of the server's own time."""
    folder, seconds = bench.site.folder, bench.pace.seconds
    before = server.process.processor_s()
    if work == "grpc":
        measured = load.h2load(server.url, server.ask, folder, seconds=seconds)
    else:
        measured = load.wrk(
            server.url, server.ask, folder, connections=_CONNECTIONS, seconds=seconds
        )
    spent = server.process.processor_s() - before
    if spent > 0:
        processor[server.name] = max(measured.count / spent, processor.get(server.name, 0.0))
    return measured.rate


def _targets(targets: Mapping[str, float]) -> str:
    return ", ".join(f"{factor:g} x {name}" for name, factor in targets.items())


def _finish(
    row: Row,
    bench: Bench,
    peers: Sequence[Contender],
    reaches: Callable[[str], bool],
    wanted: Collection[str] = (),
) -> Row:
    """Judges the row by those that were measured, and names those that were not."""
    names = ["ours", *(peer.name for peer in peers)]
    row.missing = {name: bench.site.missing[name] for name in names if name in bench.site.missing}
    row.reached = row.reached and all(reaches(name) for name in row.peers)
    unshown = [name for name in wanted if name not in row.peers]
    if unshown:
        # What was not measured is not reached.
        row.reached = False
        row.notes += f"; not shown beside: {', '.join(unshown)}"
    first = next(iter(row.peers.values()), None)
    row.ratio = row.ours / first if first else None
    return row


def _features(bench: Bench, servers: Sequence[Running]) -> str:
    """Which features our server of this row really had on."""
    for server in servers:
        if server.name == "ours" and "Authorization" in server.ask.headers:
            found = bench.features.found_on(server.port)
            on = ", ".join(name for name, there in found.items() if there) or "nothing"
            off = ", ".join(name for name, there in found.items() if not there)
            return f"ours with: {on}" + (f"; without: {off}" if off else "")
    return ""


def score(bench: Bench) -> list[Row]:
    multiples = {who.AZUREML: 25.0, who.LITSERVE: 25.0, who.MLSERVER: 25.0, who.BENTOML: 50.0}
    multiples |= {who.FASTAPI: 5.0, who.TRITON: 5.0}
    targets = {who.BARE_SCORE.name: 0.75} | {peer.name: of for peer, of in multiples.items()}
    peers = [who.BARE_SCORE, who.BARE_ASGI, *multiples, who.MLSERVER_AS_IT_COMES]
    return [throughput(bench, "score", "iris, one row, JSON", targets, peers)]


def v2(bench: Bench) -> list[Row]:
    # Held to the sketch of the row above, which has less to read and to write.
    bare = who.bare("score", "v2", who.BARE_SCORE.asks["score"])
    peers = [bare, who.BARE_V2, who.MLSERVER, who.TRITON]
    return [throughput(bench, "v2", "iris, one row, V2 JSON", {bare.name: 0.65}, peers)]


def large(bench: Bench) -> list[Row]:
    peers = [who.BARE_LARGE, who.FASTAPI, who.LITSERVE, who.BENTOML]
    return [throughput(bench, "large", "32 x 784 floats, JSON", {who.BARE_LARGE.name: 2.0}, peers)]


def binary(bench: Bench) -> list[Row]:
    targets = {who.BARE_BINARY.name: 0.7}
    peers = [who.BARE_BINARY, who.TRITON]
    return [throughput(bench, "binary", "32 x 784 floats, V2 binary", targets, peers)]


def grpc(bench: Bench) -> list[Row]:
    targets = {who.BARE_GRPC.name: 0.8, who.MLSERVER.name: 2.0}
    peers = [who.BARE_GRPC, who.MLSERVER, who.TRITON]
    return [throughput(bench, "grpc", "iris, one row, gRPC, 16 streams", targets, peers)]


def script(bench: Bench) -> list[Row]:
    """What an answer costs beside the script's own `run`, where there is always one to give."""
    ours = who.our_script(bench.features.environment, bench.features.headers)
    bare = who.bare("score", "script", who.BARE_SCORE.asks["score"])
    alone: list[float] = []
    processor: dict[str, float] = {}
    with bench.site.fresh().running([ours, who.AZUREML, bare], "script") as servers:
        both = servers[:-1]
        best = bench.site.best(
            both, bench.pace.rounds, lambda server: _cost(bench, server, alone, processor), min
        )
        single = bench.site.best(
            servers, bench.pace.rounds, lambda server: _latency(bench, server), min
        )
        notes = _features(bench, servers)
    inside = min(alone, default=math.nan)
    costs = {name: (seconds - inside) * 1e6 for name, seconds in best.items()}
    mine = costs.pop("ours", math.inf)
    answers = ", ".join(f"{name} {seconds * 1e6:.0f}" for name, seconds in single.items())
    notes += f"; run() alone {inside * 1e6:.0f} us; a whole answer on one connection: {answers} us"
    target = f"at most {SCRIPT_PART:g} x {who.AZUREML.name}"
    row = Row("Azure script, beside run()", "us", mine, target, mine < math.inf, costs, notes=notes)
    row.processor = {name: (1 / found - inside) * 1e6 for name, found in processor.items()}
    reaches = lambda name: mine <= SCRIPT_PART * costs[name]  # noqa: E731
    return [_finish(row, bench, [who.AZUREML], reaches, [who.AZUREML.name])]


def _cost(bench: Bench, server: Running, alone: list[float], processor: dict[str, float]) -> float:
    """Seconds for one answer of a server that is never idle; and beside it, those of `run`."""
    alone.append(run_alone.measure(bench.site.models["iris"]))
    return 1 / _load(bench, server, "script", processor)


def _latency(bench: Bench, server: Running) -> float:
    """Seconds for one answer to a client that waits for it."""
    folder, seconds = bench.site.folder, bench.pace.seconds
    return 1 / load.wrk(server.url, server.ask, folder, connections=1, seconds=seconds).rate


def start(bench: Bench) -> list[Row]:
    """From the start to the first right answer, and what is resident then."""
    ready: dict[str, float] = {}
    memory: dict[str, float] = {}
    peers = [bench.ours_plain, *(peer for peer in who.PEERS if peer is not who.BARE_ASGI)]
    bench.site.fresh()
    for _ in range(bench.pace.rounds):
        for contender in (bench.ours, *peers):
            try:
                server = bench.site.start(contender, "score")
            except (InstallError, StartError) as error:
                bench.site.missing[contender.name] = str(error)
                continue
            seconds, mib = server.ready_s, server.process.memory_mib()
            server.process.end()
            ready[server.name] = min(seconds, ready.get(server.name, seconds))
            memory[server.name] = min(mib, memory.get(server.name, mib))
    rows = []
    for work, unit, found, most in (
        ("ready after start", "s", ready, READY_S),
        ("memory when ready", "MiB", memory, MEMORY_MIB),
    ):
        mine = found.pop("ours", math.inf)
        row = Row(work, unit, mine, f"under {most:g} {unit}", mine < most, found)
        rows.append(_finish(row, bench, peers, lambda _name: True))
    return rows


def tail(bench: Bench) -> list[Row]:
    """How long the slow answers take where half of what is possible is asked."""
    with bench.site.fresh().running([bench.ours, who.BARE_SCORE], "score") as servers:
        tops = bench.site.best(servers, 2, lambda server: _load(bench, server, "score", {}))
        best = bench.site.best(
            servers, bench.pace.rounds, lambda server: _tail(bench, server, tops), min
        )
        notes = _features(bench, servers)
    mine = best.pop("ours", math.inf)
    notes += f"; at {tops.get('ours', 0) / 2:.0f} requests/s"
    row = Row(
        "p99 / p50 at half of the top rate", "", mine, f"at most {TAIL:g}", mine <= TAIL, best
    )
    row.notes = notes
    return [_finish(row, bench, [who.BARE_SCORE], lambda _name: True)]


def _tail(bench: Bench, server: Running, tops: Mapping[str, float]) -> float:
    wanted = tops[server.name] / 2
    found = rate.at_rate(server.url, server.ask, wanted, bench.pace.seconds)
    if found.rate < _KEPT * wanted:
        raise load.TooSlowError(f"{found.rate:.0f} of {wanted:.0f} requests/s were answered")
    return found.ratio


def long(bench: Bench) -> list[Row]:
    """Many connections for a time."""
    outcome = stress.stress(bench.site, bench.features, bench.minutes * 60, 200)
    grown = outcome.end_mib - outcome.settled_mib
    title = f"200 connections, {bench.minutes:g} min: growth"
    notes = f"{outcome.requests} requests ({', '.join(outcome.kinds)}), {outcome.rate:.0f} a second"
    notes += f", {outcome.end_mib:.0f} MiB; errors: {outcome.errors or 'none'}"
    target = f"no error, at most {stress.ALLOWED_MIB:g} MiB"
    return [Row(title, "MiB", grown, target, outcome.ok, notes=notes)]


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "score": score,
    "v2": v2,
    "large": large,
    "binary": binary,
    "script": script,
    "grpc": grpc,
    "start": start,
    "tail": tail,
    "stress": long,
}
