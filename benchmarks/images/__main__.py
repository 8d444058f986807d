"""Building and pushing images beside `docker build` and buildah: `python -m benchmarks.images`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import results
from benchmarks.images.contenders import COPIED, Dockerfile, Fieldpost, Style
from benchmarks.images.place import Place, open_place, wheels
from benchmarks.images.rows import ROWS, Bench, memory
from benchmarks.main_job import keep_bytecode
from tests.support.bases import NoBaseError

_QUICK_BYTES = 200_000_000
# Program, how the environment comes into the image, name. Targets are told of the first one.
_PEERS = (
    ("docker", Style.INSTALLED, "docker build, docker push"),
    ("docker", Style.COPIED, COPIED),
    ("docker", Style.MOUNTED, "the same with BuildKit"),
    ("buildah", Style.MOUNTED, "buildah build, buildah push"),
)


def contenders(place: Place) -> tuple[Fieldpost, list[Dockerfile]]:
    """Ours, and those peers that are at hand, with the same wheels."""
    from serve.packaging.defaults import default_lock
    from serve.packaging.requirements import target_for

    lock = default_lock("onnx", target_for(None))
    shared = wheels(lock.text)
    runtime = Path(__file__).parents[2]
    kept = place.folder / "runtime"
    for name in ("scoring", "serve/server"):
        _copy(runtime / name, kept / name)
    peers = [
        Dockerfile(place, program, name, shared, kept, style=style)
        for program, style, name in _PEERS
        if program not in place.missing
    ]
    return Fieldpost(place), peers


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def versions(place: Place) -> dict[str, str]:
    """Of everything that took part."""
    known = results.versions("httpx", "deflate")
    for name, command in (
        ("docker", [place.client, "version", "--format", "{{.Client.Version}}"]),
        ("dockerd", ["dockerd", "--version"]),
        ("buildah", ["buildah", "--version"]),
        ("docker-registry", ["docker-registry", "--version"]),
    ):
        environment = dict(place.docker) if name == "docker" else None
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
        except OSError:
            continue
        known[name] = done.stdout.strip().partition("\n")[0]
    return known


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images")
    parser.add_argument("--only", action="append", choices=ROWS, help="this row; repeatable")
    parser.add_argument("--quick", action="store_true", help="a large model of 200 MB, not 2 GB")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fp-images-", dir="/tmp") as name:
        folder = Path(name)
        keep_bytecode(folder / "bytecode")
        try:
            with open_place(folder) as place:
                bench = Bench(place, *contenders(place))
                rows = []
                for row in asked.only or ROWS:
                    quick = row == "memory" and asked.quick
                    made = memory(bench, _QUICK_BYTES) if quick else ROWS[row](bench)
                    for each in made:
                        results.print_row(each)
                    rows += made
                if not asked.quick:
                    results.write("images", rows, versions(place))
        except NoBaseError as error:
            sys.exit(f"Nothing is measured: {error}.")


if __name__ == "__main__":
    main()
