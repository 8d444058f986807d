"""Quantum circuits as JSON: told by the mark that they carry, read without running anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from scoring.errors import FieldpostError
from scoring.formats.base import Detection, LoadedModel, Trust

if TYPE_CHECKING:
    from scoring.formats.source import Source
    from scoring.quantum.circuit import Model

_MARK = re.compile(rb'"format"\s*:\s*"fieldpost\.circuit"')
_VERSION = re.compile(rb'"version"\s*:\s*(\d{1,9})')
_OPENING = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_WINDOW = 1 << 16


def detect(source: Source) -> Detection | None:
    """A circuit's file, or None where the bytes are something else.

    Raises:
        CorruptModelError: The file is cut off.
    """
    if not _OPENING.match(source.head):
        return None
    window = next((part for part in source.windows(_WINDOW) if _MARK.search(part)), None)
    if window is None:
        return None
    if not source.tail(64).rstrip().endswith(b"}"):
        raise source.corrupt("is a quantum circuit that is cut off")
    version = _VERSION.search(window)
    made_with = {"fieldpost.circuit": version[1].decode()} if version else {}
    return Detection(format="circuit", runtime="circuit", path=source.path, made_with=made_with)


def load(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:  # noqa: ARG001
    """Reads a circuit; its predictor computes the state vector with numpy.

    Raises:
        CorruptModelError: The content is broken, or not what its digest names.
        UnsupportedModelError: It was written in another version of the format.
        CircuitError: What it describes cannot be a circuit.
        CircuitTooLargeError: Its states do not fit into memory.
    """
    from scoring.quantum import document, simulate  # noqa: PLC0415 - detecting needs neither
    from scoring.quantum.describing import describe  # noqa: PLC0415
    from scoring.runtimes.circuit import CircuitPredictor  # noqa: PLC0415
    from scoring.runtimes.dependencies import pinned  # noqa: PLC0415

    try:
        model = document.load(detection.path)
        simulate.check_memory(widest(model))
    except FieldpostError as error:
        error.where = error.where or str(detection.path)
        raise
    schema = describe(model)
    return LoadedModel(
        detection=detection,
        model=model,
        schema=schema,
        predictor=CircuitPredictor(model, schema),
        requirements=pinned("numpy"),
    )


def widest(model: Model) -> int:
    """The most qubits of a model's circuits."""
    from scoring.quantum.describing import circuits_of  # noqa: PLC0415 - late: only for circuits

    return max(circuit.qubits for circuit in circuits_of(model))
