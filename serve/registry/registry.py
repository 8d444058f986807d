"""The registry of one workspace, opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from serve.registry import location as locations
from serve.registry import schema
from serve.registry.blobs import BlobStore
from serve.registry.collector import Collector
from serve.registry.database import Database
from serve.registry.deployments import DeploymentStore
from serve.registry.endpoints import EndpointStore
from serve.registry.environments import EnvironmentStore
from serve.registry.models import ModelStore
from serve.registry.packages import PackageStore
from serve.registry.referrers import ReferrerStore
from serve.registry.settings import SettingStore

if TYPE_CHECKING:
    import os

    from serve.registry.records import Freed


class Registry:
    """Everything that a workspace records, and its bytes; may be used by many threads at once.

    Args:
        place: A folder, a `postgresql://` URL or a `Location`; by default `$FIELDPOST_WORKSPACE`,
            else `~/.fieldpost`. It is made where it does not exist.
        retry_s: For how long an unreachable PostgreSQL is tried again.

    Attributes:
        location: Where it is; its text has passwords masked.
        database: The records.
        blobs: The bytes.
        models: Model versions.
        environments: Locked environments.
        packages: Built packages.
        referrers: What is attached to packages: signatures, SBOMs, provenance.
        settings: What holds for everyone who uses the workspace.
        deployments: What should run.
        endpoints: What stands in front of deployments.

    Raises:
        UsageError: The place is of no kind that a workspace can be at.
        WorkspaceError: It cannot be opened; the message says what to do.
        StorageFullError: No space is left to make it.
    """

    def __init__(
        self,
        place: str | os.PathLike[str] | locations.Location | None = None,
        *,
        retry_s: float = 15.0,
    ) -> None:
        self.location = locations.resolve(place)
        self.blobs = BlobStore(self.location.blobs)
        self.blobs.create()
        self.database = Database(self.location, retry_s=retry_s)
        try:
            schema.prepare(self.database, self.location.blobs)
        except BaseException:
            self.database.close()
            raise
        self._collector = Collector(self.database, self.blobs)
        self.models = ModelStore(self.database, self.blobs, self._collector)
        self.environments = EnvironmentStore(self.database, self.blobs)
        self.packages = PackageStore(self.database, self.blobs, self._collector)
        self.referrers = ReferrerStore(self.database, self.blobs, self._collector)
        self.settings = SettingStore(self.database)
        self.deployments = DeploymentStore(self.database)
        self.endpoints = EndpointStore(self.database)

    def gc(self, *, dry_run: bool = False) -> Freed:
        """Removes bytes that nothing references and what killed commands left.

        Args:
            dry_run: Only say what would be removed.
        """
        return self._collector.preview() if dry_run else self._collector.collect()

    def close(self) -> None:
        """Closes idle connections; the registry can still be used."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Registry({str(self.location)!r})"
