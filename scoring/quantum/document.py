"""Circuits as versioned JSON: `NAME.circuit.json`. No numpy here.

The digest in a document is that of what the circuit computes: not of the record of its training,
nor of the order of keys or the spelling of numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from scoring.errors import (
    CircuitError,
    CorruptModelError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from scoring.quantum.circuit import Circuit, Gate, Model, OneVersusRest
from scoring.quantum.features import Constant, Encoding, Power, Product, Round, Scale, Step

FORMAT = "fieldpost.circuit"
VERSION = 1
SUFFIX = ".circuit.json"
MAX_BYTES = 64 * 1024 * 1024
ORDER = "little-endian"

_STEPS: dict[str, Callable[..., Step]] = {
    "scale": Scale,
    "constant": Constant,
    "product": Product,
    "power": Power,
    "round": Round,
}
_STEP_FIELDS = {
    "scale": ("offset", "factor"),
    "constant": ("values",),
    "product": ("scale",),
    "power": ("times",),
    "round": ("step",),
}
_LISTS = frozenset({"offset", "factor", "values"})
_GATE_KEYS = frozenset({"target", "axis", "parameter", "controls"})
_CIRCUIT_KEYS = frozenset(
    {"qubits", "order", "features", "encoding", "gates", "parameters", "bias", "measured"}
    | {"classes"}
)
_HEAD_KEYS = frozenset({"format", "version", "digest", "record"})


def digest(model: Model) -> str:
    """What names a model: `sha256:` and the hash of everything that its answers depend on."""
    text = json.dumps(_content(model), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def to_document(model: Model) -> dict[str, Any]:
    """The model as JSON knows it, with its digest and its record."""
    head = {"format": FORMAT, "version": VERSION, "digest": digest(model)}
    return head | _content(model) | ({"record": dict(model.record)} if model.record else {})


def dumps(model: Model) -> bytes:
    """The model as the bytes of a file: one line for each gate, so that versions can be compared.

    Raises:
        CircuitError: The record holds something that JSON does not know.
    """
    try:
        lines = [
            f"  {json.dumps(key)}: {_lines(value)}" for key, value in to_document(model).items()
        ]
    except (TypeError, ValueError) as error:
        raise CircuitError(f"The circuit's record is no JSON: {error}.", where="record") from error
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _lines(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        inner = ",\n".join(f"    {json.dumps(item, allow_nan=False)}" for item in value)
        return f"[\n{inner}\n  ]"
    return json.dumps(value, allow_nan=False)


def save(model: Model, path: Path) -> None:
    """Writes a model's file atomically.

    Raises:
        WorkspaceError: The file cannot be written; nothing is left of it.
    """
    from scoring import durable  # noqa: PLC0415  (what only reads needs no locks)

    durable.write_bytes(Path(path), dumps(model), what="the circuit")


def load(path: Path) -> Model:
    """Reads a model's file.

    Raises:
        ModelNotFoundError: It cannot be read.
        CorruptModelError, UnsupportedModelError, CircuitError: As `loads`.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelNotFoundError(
            f"The circuit cannot be read: {error.strerror or error}.", where=str(path)
        ) from error
    return loads(data)


def loads(data: bytes) -> Model:
    """A model from the bytes of its file.

    Raises:
        CorruptModelError: It is no JSON object of this format, or its digest is another's.
        UnsupportedModelError: It was written in another version of the format.
        CircuitError: What it describes cannot be a circuit; `where` says at which place.
    """
    if len(data) > MAX_BYTES:
        raise CorruptModelError(f"The circuit's file is over {MAX_BYTES >> 20} MiB.")
    try:
        document = json.loads(data, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CorruptModelError(
            f"The circuit's file is no JSON: {error}.", hint="Write it again with `save`."
        ) from error
    return from_document(document)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of a circuit")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def from_document(document: object) -> Model:
    """A model from what its JSON says; raises as `loads`."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CorruptModelError(
            "This is no circuit of Fieldpost.",
            hint=f'A circuit is a JSON object with "format": "{FORMAT}".',
        )
    _check_version(document.get("version"))
    model = _one_versus_rest(document) if "circuits" in document else _circuit(document, _HEAD_KEYS)
    given = document.get("digest")
    if given is not None and given != digest(model):
        raise CorruptModelError(
            "The circuit is not the one that its digest names: it was changed or damaged.",
            hint='Remove the "digest" line if the change is meant.',
            where="digest",
        )
    return model


def _check_version(version: object) -> None:
    if version == VERSION and not isinstance(version, bool):
        return
    if version is None:
        raise CorruptModelError("The circuit's file does not say its version.", where="version")
    raise UnsupportedModelError(
        f"The circuit's file has version {version!r}; this Fieldpost reads version {VERSION}.",
        hint="Update Fieldpost, or write the file again with this version.",
        where="version",
    )


def _content(model: Model) -> dict[str, Any]:
    if isinstance(model, OneVersusRest):
        return {
            "rule": "one-vs-rest",
            "classes": list(model.classes),
            "circuits": [_content(circuit) for circuit in model.circuits],
        }
    return {
        "qubits": model.qubits,
        "order": ORDER,
        "features": model.encoding.features,
        "encoding": [_step_document(step) for step in model.encoding.steps],
        "gates": [_gate_document(gate) for gate in model.gates],
        "parameters": list(model.parameters),
        "bias": model.bias,
        "measured": list(model.measured),
        "classes": list(model.classes),
    }


def _gate_document(gate: Gate) -> dict[str, Any]:
    document: dict[str, Any] = {"target": gate.target, "axis": gate.axis}
    document["parameter"] = gate.parameter
    return document | ({"controls": list(gate.controls)} if gate.controls else {})


def _step_document(step: Step) -> dict[str, Any]:
    name = type(step).__name__.lower()
    document: dict[str, Any] = {"step": name}
    for key in _STEP_FIELDS[name]:
        value = getattr(step, key)
        document["to" if key == "step" else key] = value if key == "times" else _floats(value)
    return document


def _floats(value: float | tuple[float, ...]) -> float | list[float]:
    """The numbers as floats, so that 1 and 1.0, and 0.0 and -0.0, are written alike."""
    if isinstance(value, tuple):
        return [float(number) + 0.0 for number in value]
    return float(value) + 0.0


def _one_versus_rest(document: dict[str, Any]) -> OneVersusRest:
    _check_keys(document, _HEAD_KEYS | {"rule", "classes", "circuits"}, "")
    if document.get("rule") != "one-vs-rest":
        raise CircuitError(f"The rule {document.get('rule')!r} is not known.", where="rule")
    inner = [
        _circuit(_object(entry, f"circuits[{index}]"), frozenset(), f"circuits[{index}].")
        for index, entry in enumerate(_list(document, "circuits", ""))
    ]
    return OneVersusRest(
        tuple(inner), tuple(_list(document, "classes", "")), _record(document.get("record"))
    )


def _circuit(document: dict[str, Any], more: frozenset[str], where: str = "") -> Circuit:
    _check_keys(document, _CIRCUIT_KEYS | more, where)
    for key in ("qubits", "features", "gates", "parameters"):
        if key not in document:
            raise CircuitError(f"The circuit says nothing of its {key}.", where=where + key)
    if document.get("order", ORDER) != ORDER:
        raise CircuitError(
            f"The qubit order {document['order']!r} is not known.",
            hint=f"Only {ORDER} is: qubit 0 is the least significant bit.",
            where=where + "order",
        )
    gates = _list(document, "gates", where)
    steps = _list(document, "encoding", where)
    try:
        return Circuit(
            qubits=document["qubits"],
            gates=tuple(_gate(gate, f"gates[{index}]") for index, gate in enumerate(gates)),
            parameters=tuple(_list(document, "parameters", where)),
            bias=document.get("bias", 0.0),
            measured=tuple(_list(document, "measured", where)),
            classes=tuple(_list(document, "classes", where)) if "classes" in document else (0, 1),
            encoding=Encoding(
                document["features"],
                tuple(_step(step, f"encoding[{index}]") for index, step in enumerate(steps)),
            ),
            record=_record(document.get("record")),
        )
    except CircuitError as error:
        if where and not error.where.startswith(where):
            error.where = where + error.where
        raise


def _record(value: object) -> Mapping[str, Any]:
    return {} if value is None else _object(value, "record")


def _gate(entry: object, where: str) -> Gate:
    gate = _object(entry, where)
    _check_keys(gate, _GATE_KEYS, where + ".")
    for key in ("target", "axis", "parameter"):
        if key not in gate:
            raise CircuitError(f"A gate says nothing of its {key}.", where=where)
    controls = _list(gate, "controls", where + ".")
    return Gate(gate["target"], gate["axis"], gate["parameter"], tuple(controls))


def _step(entry: object, where: str) -> Step:
    step = _object(entry, where)
    name = step.get("step")
    if not isinstance(name, str) or name not in _STEPS:
        raise CircuitError(
            f"The encoding step {name!r} is not known.",
            hint=f"Known are {', '.join(_STEPS)}.",
            where=where,
        )
    keys = {"to" if key == "step" else key: key for key in _STEP_FIELDS[name]}
    _check_keys(step, frozenset(keys) | {"step"}, where + ".")
    values: dict[str, Any] = {}
    for key, attribute in keys.items():
        if key not in step:
            raise CircuitError(f"The {name} step says nothing of its {key}.", where=where)
        values[attribute] = tuple(_list(step, key, where + ".")) if key in _LISTS else step[key]
    try:
        return _STEPS[name](**values)
    except CircuitError as error:
        error.where = error.where or where
        raise


def _check_keys(document: dict[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(set(document) - known)
    if unknown:
        raise CircuitError(
            f"{unknown[0]!r} is not known here.",
            hint=f"Known are {', '.join(sorted(known))}.",
            where=where + unknown[0],
        )


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CircuitError(f"An object is needed here, not {_kind(value)}.", where=where)
    return value


def _list(document: dict[str, Any], key: str, where: str) -> list[Any]:
    value = document.get(key, [])
    if not isinstance(value, list):
        raise CircuitError(f"A list is needed here, not {_kind(value)}.", where=where + key)
    return value


def _kind(value: object) -> str:
    names = {str: "a string", bool: "a truth value", int: "a number", float: "a number"}
    if value is None:
        return "null"
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")
