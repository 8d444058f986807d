"""Says when to look again: a watch rings, and what it rang for is read anew.

Nothing is made of the events themselves. So it does not matter which are missed while a watch is
begun again (410, a connection that broke): whoever waits looks at the whole picture each time.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from scoring.errors import FieldpostError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from serve.targets.kubernetes.client import Cluster
    from serve.targets.kubernetes.kinds import Kind

_WATCH_S = 60.0
_PAUSE_S = 1.0


class Doorbell:
    """Rings when an object of some kinds changes.

    Args:
        cluster: Where.
        kinds: Which kinds.
        labels: Which of their objects.
    """

    def __init__(
        self, cluster: Cluster, kinds: tuple[Kind | str, ...], labels: Mapping[str, str]
    ) -> None:
        self._cluster = cluster
        self._labels = dict(labels)
        self._rung = threading.Event()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, args=(kind,), daemon=True) for kind in kinds
        ]

    def wait(self, timeout_s: float) -> None:
        """Returns after the next change, or when the time is up."""
        self._rung.wait(timeout_s)
        self._rung.clear()

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """The threads end with their next event: nobody waits for them."""
        self._closed.set()

    def _listen(self, kind: Kind | str) -> None:
        while not self._closed.is_set():
            try:
                version = self._cluster.list(kind, labels=self._labels).version
                self._rung.set()  # it may have changed before the watch began
                for _ in self._cluster.watch(
                    kind, version, labels=self._labels, timeout_s=_WATCH_S
                ):
                    if self._closed.is_set():
                        return
                    self._rung.set()
            except FieldpostError:
                self._rung.set()
                self._closed.wait(_PAUSE_S)
            except RuntimeError:
                return  # the client was closed
