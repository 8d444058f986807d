#!/usr/bin/env -S python3 -I -S
# ruff: noqa: S606 - a script of the image: it becomes the server
"""Serves the package of an image with Triton: `serve.py [OPTION OF tritonserver ...]`.

Writes a model repository that leads to the package, and becomes tritonserver. Repository and
Triton's own files need a writable folder: /tmp, or FIELDPOST_TRITON_FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(os.environ.get("FIELDPOST_ROOT", "/opt/fieldpost"))
HOME = Path(os.environ.get("TRITON_HOME", "/opt/tritonserver"))
MODEL = Path(__file__).with_name("model.py")


def main() -> None:
    """Checks the package, writes the repository and starts Triton in this process's place."""
    bundle = json.loads((ROOT / "model" / "bundle.json").read_bytes())
    if bundle.get("script") or not bundle.get("schema"):
        sys.exit("fieldpost: Triton serves models; a package with a script has a server of its own")
    parent = os.environ.get("FIELDPOST_TRITON_FOLDER") or tempfile.gettempdir()
    repository = Path(tempfile.mkdtemp(prefix="models-", dir=parent))
    write_repository(bundle, repository)
    program = str(HOME / "bin" / "tritonserver")
    options = ["--model-repository", str(repository), "--backend-directory", str(HOME / "backends")]
    os.execv(program, [program, *options, *sys.argv[1:]])


def write_repository(bundle: dict, repository: Path) -> None:  # type: ignore[type-arg]
    """A repository of one model, whose version is the package's."""
    version = repository / bundle["name"] / str(bundle.get("model_version") or 1)
    version.mkdir(parents=True)
    (version / "model.py").write_bytes(MODEL.read_bytes())
    (version.parent / "config.pbtxt").write_text(config(bundle), encoding="utf-8")


def config(bundle: dict) -> str:  # type: ignore[type-arg]
    """Triton's description of the model, made of the package's schema."""
    schema = bundle["schema"]
    lines = [
        f"name: {json.dumps(bundle['name'])}",
        'backend: "python"',
        "max_batch_size: 0",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        f"version_policy: {{ specific: {{ versions: [{bundle.get('model_version') or 1}] }} }}",
        *(tensor("input", spec) for spec in schema["inputs"]),
        *(tensor("output", spec) for spec in schema["outputs"]),
    ]
    return "\n".join(lines) + "\n"


def tensor(kind: str, spec: dict) -> str:  # type: ignore[type-arg]
    """One input or output; sizes that are free are -1."""
    dims = ", ".join("-1" if size is None else str(size) for size in spec["shape"])
    optional = " optional: true" if spec.get("unused") else ""
    return (
        f"{kind} [ {{ name: {json.dumps(spec['name'])} data_type: {triton_type(spec['dtype'])} "
        f"dims: [{dims}]{optional} }} ]"
    )


def triton_type(dtype: str) -> str:
    """Triton's name of a schema's dtype; maps are JSON, which is text."""
    if dtype in {"string", "map"}:
        return "TYPE_STRING"
    return "TYPE_" + dtype.upper().replace("FLOAT", "FP")


if __name__ == "__main__":
    main()
