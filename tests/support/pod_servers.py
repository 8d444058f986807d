"""Real servers that stand for the pods of the double, one for each."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self

from tests.support.server import LiveServer, Sums, serve_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.kubernetes_double.server import KubernetesDouble
    from tests.support.kubernetes_double.store import Object

DEPLOYMENT = "fieldpost.dev/deployment"


class PodServers:
    """Starts a server when a pod is first asked, so that each has counters of its own.

    Args:
        double: The cluster.
        model: What the pods of a deployment answer with; by default `Sums`.
        **settings: Of the servers.
    """

    def __init__(
        self,
        double: KubernetesDouble,
        model: Callable[[str], Any] = lambda _deployment: Sums(),
        **settings: Any,
    ) -> None:
        self._model = model
        self._settings = settings
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self.of: dict[str, LiveServer] = {}
        double.proxying.behind = self.place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def place(self, pod: Object) -> str:
        """Where the server of a pod listens."""
        metadata = pod["metadata"]
        with self._lock:
            if metadata["uid"] not in self.of:
                model = self._model(metadata["labels"][DEPLOYMENT])
                server = self._stack.enter_context(serve_model(model, **self._settings))
                self.of[metadata["uid"]] = server
            return f"127.0.0.1:{self.of[metadata['uid']].port}"
