"""Our server with all its features on, and the proof that they are."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sink import Sink

_FAR_AWAY = 1_000_000_000
_TRACED = 0.001


@dataclass
class Features:
    """What is switched on.

    Attributes:
        environment: The variables that do it.
        headers: What each request has to carry.
        key: The API key.
        access_log: The file.
        sink: Where traces go.
    """

    environment: dict[str, str]
    headers: dict[str, str]
    key: str
    access_log: Path
    sink: Sink

    @classmethod
    def make(cls, folder: Path) -> Features:
        """Writes a file of keys into the folder, and starts what takes the traces."""
        from serve.server.access import keyfile, keys

        kept, key = keys.make("benchmark", scopes=("infer", "metrics", "admin"))
        keyfile.write(folder / "keys.json", keys.KeyFile(keys=(kept,)))
        log = folder / "access.log"
        settings = {
            "API_KEYS": str(folder / "keys.json"),
            "RATE_LIMIT": str(_FAR_AWAY),
            "RATE_BURST": str(_FAR_AWAY),
            "ACCESS_LOG": str(log),
            "METRICS": "on",
        }
        sink = Sink.start()
        settings |= {"TRACES": sink.url, "TRACE_RATIO": str(_TRACED)}
        environment = {f"FIELDPOST_SERVER_{name}": value for name, value in settings.items()}
        return cls(environment, {"Authorization": f"Bearer {key}"}, key, log, sink)

    def found_on(self, port: int) -> dict[str, bool]:
        """Which ones the server that answers at a port really has on, after some requests."""
        return {
            "API keys and rates": _status(port, "POST", "/score", {})
            == http.HTTPStatus.UNAUTHORIZED,
            "metrics": _status(port, "GET", "/metrics", self.headers) == http.HTTPStatus.OK,
            "access log": self.access_log.exists() and self.access_log.stat().st_size > 0,
            "traces": self.sink.received > 0,
        }

    def close(self) -> None:
        """Ends the sink."""
        self.sink.close()


def _status(port: int, method: str, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()
