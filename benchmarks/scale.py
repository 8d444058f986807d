"""What a cluster needs for a million requests a second, from what one core was measured to do.

`python -m benchmarks.scale` prints the tables of docs/explanation/scale.md from `results/`. Nothing
is measured here: the assumptions stand beside the figures.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from benchmarks.results import FOLDER

GOAL = 1_000_000
TARGET = 0.70
"""Part of a core that a scaler keeps to: `target_cpu`."""
ZONES = 3
SCRAPE_S = 15.0
"""How old what a scaler knows may be."""
SYNC_S = 15.0
"""How often it looks."""
MOST_PER_ROUND = 4.0
"""`behavior.scaleUp`: 300 percent more in one round."""
SANDBOX_S = 1.5
"""Scheduling and a pod's sandbox, where the image is on the node."""
PROBE_S = 2.0
"""`startupProbe.periodSeconds`: a pod that is ready waits for the next one."""

# Bytes of a request and its answer with their heads, as the benchmark sends them.
WORKLOADS = {
    "iris, one row, JSON": 500,
    "iris, one row, V2 JSON": 700,
    "iris, one row, gRPC, 16 streams": 400,
    "32 x 784 floats, V2 binary": 32 * 784 * 4 + 700,
    "32 x 784 floats, JSON": 32 * 784 * 11 + 500,
}


@dataclass(frozen=True)
class Need:
    """What a workload needs.

    Attributes:
        work: As the benchmark calls it.
        per_core: Requests a second that one core was measured to answer.
        cores: Kept busy at the scaler's target.
        pods: Of one core, so many that a zone may be lost.
        memory_gib: Of all pods, as they were measured when ready.
        gigabits: A second, both ways together.
    """

    work: str
    per_core: float
    cores: int
    pods: int
    memory_gib: float
    gigabits: float


def measured() -> dict[str, float]:
    """Work to our figure, as the server's benchmark has written it."""
    rows = json.loads((FOLDER / "server.json").read_text())
    return {row["work"]: float(row["ours"]) for row in rows if row["ours"] is not None}


def need(work: str, per_core: float, memory_mib: float, goal: int = GOAL) -> Need:
    """The cluster for one kind of requests."""
    cores = math.ceil(goal / (per_core * TARGET))
    pods = math.ceil(cores * ZONES / (ZONES - 1))
    gigabits = goal * WORKLOADS[work] * 8 / 1e9
    return Need(work, per_core, cores, pods, pods * memory_mib / 1024, gigabits)


def rounds(step: float, most_per_round: float) -> int:
    """How often a scaler looks until it has enough pods for a step."""
    return math.ceil(math.log(step) / math.log(most_per_round))


def seen(cores_promised: float) -> float:
    """How much more than its target a scaler by processor time can see.

    A pod that is overrun keeps one core busy, whatever else waits: that is all the scaler learns.
    """
    return 1 / cores_promised / TARGET


def follow_s(step: float, most_per_round: float, start_s: float) -> tuple[float, float]:
    """Seconds from a step in load until the last pod answers: at best, and at worst."""
    looks = rounds(step, min(most_per_round, MOST_PER_ROUND))
    ready = SANDBOX_S + start_s
    return (looks - 1) * SYNC_S + ready, SCRAPE_S + looks * SYNC_S + ready + PROBE_S


def main() -> None:
    found = measured()
    memory, start = found["memory when ready"], found["ready after start"]
    print("| requests | a core, requests/s | cores | pods | memory | network |")
    print("|---|---|---|---|---|---|")
    for work in WORKLOADS:
        of = need(work, found[work], memory)
        print(
            f"| {work} | {of.per_core:,.0f} | {of.cores:,} | {of.pods:,} | "
            f"{of.memory_gib:,.0f} GiB | {of.gigabits:,.0f} Gbit/s |"
        )
    print("\n| scaler | sees at most | rounds | until all pods answer |\n|---|---|---|---|")
    ways = (
        ("`target_in_flight`", math.inf),
        ("`target_cpu`, `cpu=500m`", seen(0.5)),
        ("`target_cpu`, `cpu=1`", seen(1.0)),
    )
    for way, most in ways:
        best, worst = follow_s(10, most, start)
        told = "what waits" if math.isinf(most) else f"{most:.1f} times its target"
        looks = rounds(10, min(most, MOST_PER_ROUND))
        print(f"| {way} | {told} | {looks} | {best:.0f} to {worst:.0f} s |")


if __name__ == "__main__":
    main()
