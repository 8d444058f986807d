"""What a supervisor writes to the registry: that a revision answers, or never will."""

from __future__ import annotations

from typing import Protocol


class Records(Protocol):
    """The part of the registry that a supervisor writes. Called on a thread of its own."""

    def warm_up(self) -> None:
        """Loads what the other calls need, while the workers load their model."""
        ...

    def activate(self, revision: int, url: str) -> None:
        """Records that the revision answers at this URL."""
        ...

    def start(self) -> None:
        """Records that the deployment is to run: its active revision answers again."""
        ...

    def fail(self, revision: int, reason: str, detail: str) -> None:
        """Records that the revision never became ready."""
        ...


class RegistryRecords:
    """Opens the registry only when there is something to write: the workers need it not.

    Args:
        location: What `Registry` takes.
        name: The deployment.
    """

    def __init__(self, location: str, name: str) -> None:
        self._location = location
        self._name = name

    def warm_up(self) -> None:
        """Imports the registry and its database driver."""
        from serve.registry import Registry  # noqa: F401, PLC0415

    def activate(self, revision: int, url: str) -> None:
        """Records that the revision answers at this URL.

        Raises:
            ServeError: The registry refuses, or cannot be written.
        """
        from serve.registry import Registry  # noqa: PLC0415 - not needed to answer

        with Registry(self._location) as registry:
            # The address first: a revision that is active without one has no stable URL to keep.
            before = registry.deployments.get(self._name).address
            registry.deployments.set_address(self._name, url)
            try:
                registry.deployments.activate(self._name, revision)
            except BaseException:
                registry.deployments.set_address(self._name, before)
                raise

    def start(self) -> None:
        """Records that the deployment is to run: its active revision answers again.

        Raises:
            ServeError: The registry refuses, or cannot be written.
        """
        from serve.registry import Registry  # noqa: PLC0415

        with Registry(self._location) as registry:
            registry.deployments.start(self._name)

    def fail(self, revision: int, reason: str, detail: str) -> None:
        """Records that the revision never became ready.

        Raises:
            ServeError: The registry refuses, or cannot be written.
        """
        from serve.registry import Registry  # noqa: PLC0415

        with Registry(self._location) as registry:
            registry.deployments.fail(self._name, revision, reason, detail)
