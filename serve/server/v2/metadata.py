"""The protocol's documents: the server, its models, their configuration and statistics. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring import __version__
from serve.server.v2.datatypes import CONFIG_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from serve.server.models.repository import IndexEntry
    from serve.server.models.stats import Duration, ModelStats
    from serve.server.v2.answers import OutputPort
    from serve.server.v2.endpoint import Endpoint
    from serve.server.v2.inputs import InputPort

EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "binary_tensor_data",
    "statistics",
)
_PLATFORMS = {"onnx": "onnxruntime_onnx"}
_BACKENDS = {"onnx": "onnxruntime"}


def server(name: str) -> dict[str, Any]:
    """What `GET /v2` tells."""
    return {"name": name, "version": __version__, "extensions": list(EXTENSIONS)}


def model(endpoint: Endpoint, versions: Sequence[str]) -> dict[str, Any]:
    """What `GET /v2/models/NAME` tells; free sizes are -1."""
    served = endpoint.model
    notes = served.schema.notes
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": _PLATFORMS.get(served.runtime, served.runtime),
        "inputs": [_tensor(port) for port in endpoint.inputs.ports.values()],
        "outputs": [
            _tensor(port) | ({"parameters": port.parameters} if port.parameters else {})
            for port in endpoint.answers.ports.values()
        ],
    } | ({"parameters": dict(notes)} if notes else {})


def _tensor(port: InputPort | OutputPort) -> dict[str, Any]:
    return {"name": port.name, "datatype": port.datatype, "shape": port.shape}


def config(endpoint: Endpoint) -> dict[str, Any]:
    """What `GET /v2/models/NAME/config` tells, in the terms of Triton's model configuration.

    Where requests may share a run, the first size of every tensor is the batch, and left out.
    """
    served = endpoint.model
    skip = 1 if served.batches else 0
    return {
        "name": served.name,
        "platform": _PLATFORMS.get(served.runtime, served.runtime),
        "backend": _BACKENDS.get(served.runtime, served.runtime),
        "max_batch_size": served.max_batch_rows if served.batches else 0,
        "input": [
            _configured(port, skip) | {"format": "FORMAT_NONE"}
            for port in endpoint.inputs.ports.values()
        ],
        "output": [_configured(port, skip) for port in endpoint.answers.ports.values()],
    }


def _configured(port: InputPort | OutputPort, skip: int) -> dict[str, Any]:
    return {
        "name": port.name,
        "data_type": CONFIG_TYPES[port.datatype],
        "dims": port.shape[skip:],
    }


def statistics(models: Iterable[tuple[str, str, ModelStats]]) -> dict[str, Any]:
    """What `GET /v2/models/NAME/stats` tells, of (name, version, statistics) of each model."""
    return {"model_stats": [_statistics(*of_model) for of_model in models]}


def _statistics(name: str, version: str, stats: ModelStats) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "last_inference": stats.last_inference_ms,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "inference_stats": {
            "success": _duration(stats.success),
            "fail": _duration(stats.fail),
            "queue": _duration(stats.queue),
            "compute_input": _duration(stats.compute_input),
            "compute_infer": _duration(stats.compute_infer),
            "compute_output": _duration(stats.compute_output),
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [
            {"batch_size": size, "compute_infer": _duration(batch.infer)}
            for size, batch in sorted(stats.batches.items())
        ],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}


def index(entries: Iterable[IndexEntry], *, ready: bool) -> list[dict[str, str]]:
    """What `POST /v2/repository/index` tells.

    Args:
        entries: Of the repository.
        ready: Only the models that answer.
    """
    return [
        {
            "name": entry.name,
            "version": entry.version,
            "state": entry.state,
            "reason": entry.reason,
        }
        for entry in entries
        if entry.state == "READY" or not ready
    ]
