"""Telemetry beside a controller, in one piece: what arrives, what is kept, and who is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Self

from edge.protocol.messages import Ack
from edge.protocol.topics import Topic
from edge.telemetry import prometheus
from edge.telemetry.families import families
from edge.telemetry.ingest import Ingest, Quota
from edge.telemetry.live import Live
from edge.telemetry.otlp import Exporter
from edge.telemetry.store import FOLDER, Retention, Store
from scoring.errors import FieldpostError, MissingDependencyError

logger = logging.getLogger(__name__)

SEAL_S: Final = 300.0
KEEP_S: Final = 3600.0
EXPORT_S: Final = 30.0


class Upkeep(NamedTuple):
    """Something to do from time to time.

    Attributes:
        name: For the log.
        every_s: How often.
        run: Does it; raises FieldpostError where it cannot.
    """

    name: str
    every_s: float
    run: Callable[[], object]


class TelemetryService:
    """What a controller has of telemetry.

    Args:
        folder: Of the workspace; telemetry lies in `telemetry` below it.
        quota: Of each device.
        retention: For how long it is kept.
        exporter: To a collector of OpenTelemetry; None for none.
        clock: Seconds since the epoch.

    Attributes:
        store: To be asked.
        live: What the fleet does now.

    Raises:
        WorkspaceError: It cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quota: Quota | None = None,
        retention: Retention | None = None,
        exporter: Exporter | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = Store(folder / FOLDER, clock=clock)
        self.live = Live(clock=clock)
        self._ingest = Ingest(
            self.store.inbox, quota=quota, listeners=[self.live.take], clock=clock
        )
        self._retention = retention or Retention()
        self._exporter = exporter
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Hears anew what was stored lately, by whomever."""
        try:
            self.live.load(self.store)
        except MissingDependencyError:
            pass
        except FieldpostError as error:  # only what was is not known then
            logger.error("telemetry of before could not be read reason=%s", error)  # noqa: TRY400

    def take(self, where: Topic, payload: bytes) -> Ack | None:
        """Stores what came on a topic; see `Ingest.take`. One thread."""
        return self._ingest.take(where, payload)

    def add(self, where: Topic, payload: bytes) -> None:
        """Takes what came on a topic into the next commit; see `Ingest.add`."""
        self._ingest.add(where, payload)

    def commit(self) -> list[Ack]:
        """Stores what was added, with one sync; see `Ingest.commit`."""
        return self._ingest.commit()

    def page(self) -> bytes:
        """What Prometheus gets (`prometheus.CONTENT_TYPE`)."""
        return prometheus.render(families(self.live.snapshot(), self._ingest.counts))

    def upkeep(self) -> list[Upkeep]:
        """What has to be done from time to time, by whoever leads."""
        found = [
            Upkeep("seal telemetry", SEAL_S, self.store.seal),
            Upkeep("keep telemetry", KEEP_S, self._keep),
        ]
        if self._exporter is not None:
            found.append(Upkeep("export telemetry", EXPORT_S, self._export))
        return found

    def close(self) -> None:
        """Closes the store."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self) -> None:
        self.store.prune(self._retention)  # first: to merge takes room
        self.store.merge()

    def _export(self) -> None:
        assert self._exporter is not None
        found = families(self.live.snapshot(), self._ingest.counts)
        self._exporter.send(found, self._clock())
