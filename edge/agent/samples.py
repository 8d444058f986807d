"""The example of a package: a version that is tried has to answer it before anyone else asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from edge.agent import health
from edge.protocol.messages import Module
from scoring import bundle as bundles
from scoring.errors import DeploymentFailedError, FieldpostError
from scoring.payload.answers import answer_keys
from scoring.schema import ModelSchema

SETTING: Final = "probe"
"""`ready` in a module's settings: the example is not asked."""

_TIMEOUT_S: Final = 60.0
_OK: Final = 200
_NOT_FOR_US: Final = frozenset({401, 403, 429})
"""It lets in those who have a key, and the agent has none."""
_MOST_SHOWN: Final = 2000


def require_answer(port: int, run: Module, root: Path) -> None:
    """Has a worker answer its package's example, where it has one.

    Args:
        port: Where it answers.
        run: What it is.
        root: Where the package is unpacked.

    Raises:
        DeploymentFailedError: It does not answer, or with an error, or with something else than the
            outputs of the model.
    """
    schema = _schema(root)
    if schema is None or schema.example is None or run.settings.get(SETTING) == "ready":
        return
    timeout_s = min(run.timeout_s, _TIMEOUT_S)
    answer = health.score(port, msgspec.json.encode(schema.example), timeout_s)
    if answer.status == 0:
        raise _failed(f"It does not answer the package's example within {timeout_s:.0f} s.", answer)
    if answer.status in _NOT_FOR_US:
        return
    if answer.status != _OK:
        raise _failed(f"It answers the package's example with {_reason(answer)}.", answer)
    missing = _missing(answer.body, schema)
    if missing:
        raise _failed(f"Its answer to the package's example lacks {missing}.", answer)


def _schema(root: Path) -> ModelSchema | None:
    try:
        return bundles.read(root).schema
    except FieldpostError:  # its worker says what is wrong with it
        return None


def _missing(body: bytes, schema: ModelSchema) -> str:
    """What an answer does not have; empty where it has all outputs, with something in each."""
    assert schema.example is not None
    named = "inputs" in schema.example
    keys = [spec.name for spec in schema.outputs] if named else [k for k, _ in answer_keys(schema)]
    try:
        found: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "JSON"
    if named:
        found = found.get("outputs") if isinstance(found, dict) else None
    lacking = [k for k in keys if not isinstance(found, dict) or found.get(k) in (None, [], {})]
    return ", ".join(lacking)


def _reason(answer: health.Answer) -> str:
    try:
        error = msgspec.json.decode(answer.body)["error"]
        return f"status {answer.status}: {error['message']}".rstrip(".")[:500]
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"status {answer.status}"


def _failed(message: str, answer: health.Answer) -> DeploymentFailedError:
    return DeploymentFailedError(
        message,
        hint=f"Score the example with another target, or set {SETTING}=ready for the module.",
        detail=answer.body[:_MOST_SHOWN].decode(errors="replace"),
    )
