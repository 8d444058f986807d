"""The control path of Kubernetes: what a revision of a thousand deployments costs the client.

Rendering and comparing alone, on one core: no cluster is asked. `python -m benchmarks.kubernetes`
"""

from __future__ import annotations

import argparse
import copy
import os
import time

import msgspec

from benchmarks.results import Row, report
from serve.targets.kubernetes.deployable import Deployable, PackageFacts
from serve.targets.kubernetes.diff import difference
from serve.targets.kubernetes.objects import Object, render
from serve.targets.kubernetes.settings import parse

DEPLOYMENTS = 1000
LIMIT_S = 5.0
_SETTINGS = {
    "replicas": "3",
    "max_replicas": "30",
    "rate_limit": "100",
    "api_keys_secret": "keys",
    "gateway": "public",
    "hostname": "models.example.org",
    "env.TOKEN": "secret",
}


def deployables(count: int, revision: int) -> list[Deployable]:
    """Each with a package of its own, and of each revision another."""
    return [_deployable(number, revision) for number in range(count)]


def _deployable(number: int, revision: int) -> Deployable:
    digest = f"sha256:{number:032x}{revision:032x}"
    facts = PackageFacts(
        digest=digest,
        model=f"model-{number}",
        version=str(revision),
        environment_bytes=200 << 20,
        model_bytes=number << 16,
    )
    return Deployable(
        name=f"model-{number}",
        image=f"registry.example.org/models/{number}@{digest}",
        package=facts,
        settings=parse({**_SETTINGS, "path": f"/{number}"}),
        namespace="models",
        workspace="0" * 32,
        revision=revision,
        monitors=True,
    )


def as_live(item: Object) -> Object:
    """As a cluster would answer: with what it writes itself."""
    found = copy.deepcopy(item)
    found["metadata"] |= {"uid": "0", "resourceVersion": "1", "generation": 1}
    return found


def measure(count: int) -> tuple[float, float, float, int]:
    """Seconds to render, to compare what is equal, and to compare what all changes; objects."""
    live = [as_live(item) for of in deployables(count, 1) for item in render(of)]
    begun = time.process_time()
    again = [item for of in deployables(count, 1) for item in render(of)]
    rendered = time.process_time()
    equal = [difference(*pair) for pair in zip(live, again, strict=True)]
    compared = time.process_time()
    assert {each.change for each in equal} == {"none"}
    new = [item for of in deployables(count, 2) for item in render(of)]
    before = time.process_time()
    changed = [difference(*pair) for pair in zip(live, new, strict=True)]
    ended = time.process_time()
    assert {each.change for each in changed} == {"update"}
    return rendered - begun, compared - rendered, ended - before, len(live)


def rows(count: int) -> list[Row]:
    """Ours alone: nothing else renders these objects."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    render_s, equal_s, changed_s, objects = measure(count)
    limit = LIMIT_S * count / DEPLOYMENTS
    note = f"{objects} objects; processor time of one core; no cluster is asked"
    work = f"{count} deployments rendered and compared"
    figures = (("nothing changes", equal_s), ("every object changes", changed_s))
    return [
        Row(
            f"{work}, {what}",
            "s",
            render_s + diff_s,
            f"under {limit:g} s",
            render_s + diff_s < limit,
            notes=f"{note}; rendering {render_s:.2f} s",
        )
        for what, diff_s in figures
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=DEPLOYMENTS)
    parser.add_argument("--dry", action="store_true", help="write no results")
    given = parser.parse_args()
    measured = rows(given.deployments)
    if given.dry or given.deployments != DEPLOYMENTS:
        print(msgspec.json.format(msgspec.json.encode(measured)).decode())
        return
    report("kubernetes", measured)


if __name__ == "__main__":
    main()
