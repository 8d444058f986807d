"""Which packages the small runtime serves (`edge.circuits`), and how it is started.

It is a process like any other to the agent, run with the agent's own interpreter: of the package it
needs the model layer alone, whatever platform the rest is for.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from edge.protocol.messages import Module
from scoring import bundle as bundles
from scoring.errors import FieldpostError
from scoring.packages.platformindex import this_platform
from scoring.schema import CIRCUIT_NOTE

LAYERS: Final = frozenset({"model"})
"""What the small runtime needs of a package."""


def layers_of(run: Module) -> frozenset[str]:
    """The layers that have to be on the device; none named: all of them."""
    return LAYERS if run.run == "circuit" else frozenset()


def is_served_small(run: Module, root: Path) -> bool:
    """Whether a package is run by the small runtime: as it is wished, or since nothing else can.

    Args:
        run: How it is to run.
        root: Where it is unpacked.
    """
    if run.run != "auto":
        return run.run == "circuit"
    return _holds_circuit(root) and not _runs_itself(root)


def command(root: Path) -> list[str]:
    """What serves the circuit of a package."""
    return [sys.executable, "-I", "-X", "utf8", "-m", "edge.circuits.worker", str(root)]


def _holds_circuit(root: Path) -> bool:
    try:
        bundle = bundles.read(root)
    except FieldpostError:
        return False
    noted = bundle.schema is not None and CIRCUIT_NOTE in bundle.schema.notes
    return bundle.runtime == "circuit" or noted


def _runs_itself(root: Path) -> bool:
    """Whether what the package brings along runs on this device."""
    folder = root / "env"
    try:
        told: dict[str, Any] = json.loads((folder / "environment.json").read_bytes())
        python, platform = str(told["python"]), str(told.get("platform", this_platform()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    has_python = python == here or shutil.which(f"python{python}") is not None
    has_numpy = (folder / "site-packages" / "numpy").is_dir()
    return has_python and has_numpy and platform == this_platform()
