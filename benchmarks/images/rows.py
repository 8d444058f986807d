"""What is measured, and what has to be reached."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.images import starting
from benchmarks.images.contenders import COPIED, Contender, Dockerfile, Fieldpost
from benchmarks.images.place import FIELDPOST, Place, make_models
from benchmarks.images.proxy import CountingProxy, counting
from benchmarks.results import Row

MODEL_BYTES = 2_000_000
INPUTS = 500  # of a model of this size, see `weights`
LARGE_BYTES = 2_000_000_000
_MANIFESTS_BYTES = 20_000
_MEMORY_MIB = 150
_ROUNDS = 5


class Bench:
    """The contenders and their models."""

    def __init__(self, place: Place, ours: Fieldpost, peers: Sequence[Dockerfile]) -> None:
        self.place = place
        self.ours = ours
        self.peers = peers
        self._models = iter(make_models(place.folder / "models", 4 * _ROUNDS + 4, MODEL_BYTES))

    @property
    def everyone(self) -> list[Contender]:
        return [self.ours, *self.peers]

    def next_model(self) -> Path:
        """One that nobody has seen."""
        return next(self._models)

    def row(
        self, work: str, times: Mapping[str, float], target: str, factor: float, beside: str = ""
    ) -> Row:
        """A row of seconds: to be `factor` times as fast as the first peer, or as another."""
        peers = {peer.name: times[peer.name] for peer in self.peers if peer.name in times}
        row = Row(work, "s", times[self.ours.name], target, reached=False, peers=peers)
        if peers and (not beside or beside in peers):
            row.ratio = peers[beside or next(iter(peers))] / row.ours
            row.reached = row.ratio >= factor
        row.missing = dict(self.place.missing)
        return row

    def best(self, rounds: int, prepare: Callable[[], None]) -> dict[str, float]:
        """Everyone in turn; the best of each, as others' work on the machine only adds."""
        found: dict[str, float] = {}
        for _ in range(rounds):
            prepare()
            for contender in self.everyone:
                seconds = contender.build_and_push()
                found[contender.name] = min(seconds, found.get(contender.name, seconds))
        return found


def parts(ours: Fieldpost) -> str:
    """Our seconds of the last time, command by command."""
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in ours.parts.items())
    return f"ours, the last time, each a whole command, of which only the last counts: {told}"


def first(bench: Bench) -> list[Row]:
    """Nothing is built yet, the registry has the base alone; the wheels are on this machine."""

    def prepare() -> None:
        bench.place.clean_registry()
        model = bench.next_model()
        for contender in bench.everyone:
            contender.forget()
            contender.take(model)

    times = bench.best(2, prepare)
    row = bench.row("first build and push", times, "3 x docker build and push", 3)
    row.notes = parts(bench.ours)
    return [row]


def changed(bench: Bench) -> list[Row]:
    """Another model; everything else was built and pushed before."""

    def prepare() -> None:
        model = bench.next_model()
        for contender in bench.everyone:
            contender.take(model)

    prepare()
    bench.best(1, lambda: None)
    times = bench.best(_ROUNDS, prepare)
    work = "build and push, only the model changed"
    row = bench.row(work, times, "8 x docker", 8)
    row.notes = parts(bench.ours)
    # Docker reads the whole folder before it finds that one file has changed: what it takes hangs
    # on what lies there, a few wheels or the two thousand files that are in them.
    copied = bench.row(work, times, f"8 x {COPIED}", 8, beside=COPIED)
    copied.notes = "the same times, held against the other Dockerfile"
    return [row, copied]


def nothing(bench: Bench) -> list[Row]:
    """The same once more."""
    model = bench.next_model()
    for contender in bench.everyone:
        contender.take(model)
    bench.best(1, lambda: None)
    times = bench.best(_ROUNDS, lambda: None)
    row = bench.row("build and push, nothing changed", times, "under 0.3 s", 0)
    row.reached = row.ours < 0.3
    row.notes = parts(bench.ours)
    return [row]


def sent(bench: Bench) -> list[Row]:
    """Bytes on the wire when only the model changed, beside the compressed layer of the model."""
    with counting(bench.place.registry.port) as proxy:
        ours = Fieldpost(bench.place, to=f"127.0.0.1:{proxy.port}/ours:1")
        ours.take(bench.next_model())
        ours.build_and_push()
        whole = _beside(bench, ours, proxy, ours.build_and_push)
        bare = _beside(bench, ours, proxy, ours.push_bare)
    row = Row(
        "bytes sent, only the model changed",
        "B",
        whole,
        "at most 20 kB beside the model",
        whole <= _MANIFESTS_BYTES,
        notes="all that was written to the registry's socket, headers and all, without the model's "
        "compressed layer. The provenance, and what names it and both SBOMs, is in it; without "
        f"(--no-attach) it is {bare} B",
    )
    return [row]


def _beside(bench: Bench, ours: Fieldpost, proxy: CountingProxy, push: Callable[[], object]) -> int:
    """What a push of another model sends besides the model."""
    before = proxy.sent
    ours.take(bench.next_model())
    push()
    return proxy.sent - before - _model_layer_bytes(ours)


def _model_layer_bytes(ours: Fieldpost) -> int:
    layers = ours.show("m")["layers"]
    return int(next(layer["size"] for layer in layers if layer["name"] == "model"))


def started(bench: Bench) -> list[Row]:
    """Of a container of our image."""
    bench.ours.take(bench.next_model())
    bench.ours.build_and_push()
    return starting.measure(bench.place, bench.ours, INPUTS)


def memory(bench: Bench, size: int = LARGE_BYTES) -> list[Row]:
    """Peak memory of the commands that build and push a large model."""
    folder = bench.place.folder / "large"
    bench.ours.forget()
    bench.ours.take(make_models(folder, 1, size)[0])
    (folder / "000.onnx").unlink()
    peaks = {
        "build": _peak_mib(bench.ours, "package", "build", "m", "--base", bench.place.base),
        "push": _peak_mib(bench.ours, "package", "push", "m", bench.ours.to),
    }
    told = ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items())
    peak = max(peaks.values())
    return [
        Row(
            f"peak memory, a model of {size / 1e9:g} GB",
            "MiB",
            peak,
            f"under {_MEMORY_MIB} MiB",
            peak < _MEMORY_MIB,
            notes=f"resident, each command with all that it starts: {told}",
        )
    ]


def _peak_mib(ours: Fieldpost, *arguments: str) -> float:
    """The most that a command, or a process that it started, held at once."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [FIELDPOST, *arguments], env=dict(ours.environment), stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(output.read().decode()[-1000:])
    return usage.ru_maxrss / 1024


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "first": first,
    "changed": changed,
    "nothing": nothing,
    "sent": sent,
    "started": started,
    "memory": memory,
}
