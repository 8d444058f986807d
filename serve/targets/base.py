"""What every target offers, and the lookup that finds one by name.

A target runs packages somewhere. It knows the truth about what runs there; the registry knows what
is wished for. Targets register themselves in the entry-point group `fieldpost.targets`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    cast,
    runtime_checkable,
)

import msgspec

from scoring.deploying.status import DeployResult, Status, StatusState, WorkerStatus
from scoring.errors import NotFoundError, TargetError, UsageError
from serve.targets.settings import mask_settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from scoring.packages.storage import Blobs
    from serve.registry.records import Deployment, Revision

__all__ = [
    "ENTRY_POINT_GROUP",
    "DeployRequest",
    "DeployResult",
    "Difference",
    "Previewing",
    "Progress",
    "Reaching",
    "Route",
    "Scaling",
    "Status",
    "StatusState",
    "Target",
    "TargetContext",
    "WorkerStatus",
    "find_target",
    "ignore",
    "request_to_start",
    "revision_to_start",
    "target_names",
]

ENTRY_POINT_GROUP = "fieldpost.targets"

Progress = Callable[[str], None]
"""Takes one sentence about what is going on."""


@dataclass(frozen=True, slots=True)
class TargetContext:
    """What a target gets from the workspace.

    Attributes:
        location: What `Registry` takes to open the same registry in another process. It may hold
            a password.
        blobs: The store that holds the packages.
        cache_dir: Where packages are unpacked.
        run_dir: Where the target may keep files of its own on this machine.
    """

    location: str = field(repr=False)
    blobs: Blobs
    cache_dir: Path
    run_dir: Path


class DeployRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A revision that is to answer in place of the one before.

    Attributes:
        name: The deployment.
        revision: Its number; the registry holds it as `pending`.
        package: The digest.
        settings: As the user gave them: `{"workers": "2", "env.TOKEN": "..."}`.
        address: The URL that the deployment has had; empty before its first revision.
        force: Take over what others own, where the target knows owners.
    """

    name: str
    revision: int
    package: str
    settings: dict[str, Any]
    address: str = ""
    force: bool = False

    def __repr__(self) -> str:
        return (
            f"DeployRequest({self.name!r}, revision={self.revision}, package={self.package!r}, "
            f"settings={mask_settings(self.settings)!r})"
        )


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one object.

    Attributes:
        object: Its kind and name.
        change: What happens to it.
        lines: The difference, as `diff -u` writes it.
    """

    object: str
    change: Literal["create", "update", "delete", "none"]
    lines: tuple[str, ...] = ()


class Target(Protocol):
    """A place where packages run.

    Attributes:
        name: As `--target` names it.
        Settings: The keys that `--set` takes, with their types; see `parse_settings`.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[msgspec.Struct]]

    def __init__(self, context: TargetContext) -> None: ...

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raises `UsageError` for a key or value that the target does not take."""
        ...

    def deploy(self, request: DeployRequest, progress: Progress = ...) -> DeployResult:
        """Makes the revision answer, and marks it active in the registry when it does.

        Raises:
            DeploymentFailedError: It never became ready; the one before goes on answering, and
                the registry holds the revision as `failed`. Carries the script's own traceback.
            TargetError: The target cannot do it at all.
        """
        ...

    def status(self, deployment: Deployment) -> Status:
        """What really runs, whatever the registry wishes."""
        ...

    def logs(
        self, deployment: Deployment, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Lines of the log, oldest first; with `follow` until the iterator is closed."""
        ...

    def stop(self, deployment: Deployment, progress: Progress = ...) -> None:
        """Lets the workers answer what they have begun, ends everything, and waits until it is."""
        ...

    def start(self, deployment: Deployment, progress: Progress = ...) -> DeployResult:
        """Brings the active revision back on the same address; nothing to do where it runs."""
        ...

    def remove(self, deployment: Deployment) -> None:
        """Deletes the files of a stopped deployment, logs included."""
        ...


@runtime_checkable
class Previewing(Protocol):
    """A target that can show beforehand what it would make."""

    def preview(self, request: DeployRequest) -> Sequence[dict[str, Any]]:
        """The objects that `deploy` would make, in order; values of secrets are masked."""
        ...

    def difference(self, request: DeployRequest) -> Sequence[Difference]:
        """What `deploy` would change of what is there; nothing is changed."""
        ...


class Route(NamedTuple):
    """A way to what answers.

    Attributes:
        url: From here, as long as the way is open.
        shown: What that stands for, for people.
    """

    url: str
    shown: str

    @property
    def scoring(self) -> str:
        """Where scoring requests go: below the path that the address may have."""
        return f"{self.url.rstrip('/')}/score" if self.url else ""

    def require(self, protocol: str) -> None:
        """Raises `UsageError` where the way does not carry a protocol."""
        if protocol == "grpc" and self.url != self.shown:
            raise UsageError(
                "The way through a cluster's API carries no gRPC.",
                hint="Take another --protocol, or 'kubectl port-forward' and a grpc:// URL.",
                where="protocol",
            )

    def outside(self, text: str) -> str:
        """A text with what means something when the way is closed."""
        return text.replace(self.url, self.shown) if self.url else text


@runtime_checkable
class Reaching(Protocol):
    """A target whose deployments are not always reached by their URL from this machine."""

    def reach(self, deployment: Deployment) -> AbstractContextManager[Route]:
        """The way to it from here, for the time of the block.

        Raises:
            TargetError: There is no way to it.
        """
        ...


@runtime_checkable
class Scaling(Protocol):
    """A target that changes the number of workers without a new revision."""

    def scale(self, deployment: Deployment, count: int, progress: Progress = ...) -> DeployResult:
        """Returns when so many workers answer.

        Raises:
            UsageError: It does not run, or something else sets the number.
            DeploymentFailedError: They do not become ready.
        """
        ...


def revision_to_start(deployment: Deployment) -> Revision:
    """The revision that `Target.start` brings back.

    Raises:
        NotFoundError: None ever became active.
    """
    if deployment.active_revision is None:
        raise NotFoundError(
            f"The deployment {deployment.name!r} has no revision to start.",
            hint=f"Deploy one: 'fieldpost deploy {deployment.name} --package REF'.",
        )
    return deployment.active_revision


def request_to_start(deployment: Deployment) -> DeployRequest:
    """What deploys that revision again, at its address; raises like `revision_to_start`."""
    active = revision_to_start(deployment)
    return DeployRequest(
        name=deployment.name,
        revision=active.number,
        package=active.package,
        settings=dict(active.settings),
        address=deployment.address,
    )


def ignore(_sentence: str) -> None:
    """A `Progress` for those who want none."""


def target_names() -> list[str]:
    """The names of all targets that are installed."""
    return sorted(_entry_points())


def find_target(name: str) -> type[Target]:
    """The target of this name, imported now.

    Raises:
        UsageError: There is none; the message lists those that there are.
        TargetError: It is installed but cannot be imported.
    """
    entry = _entry_points().get(name)
    if entry is None:
        raise UsageError(
            f"There is no target {name!r}.",
            hint=f"Choose one of: {', '.join(target_names()) or 'none is installed'}.",
        )
    try:
        return cast("type[Target]", entry.load())
    except (ImportError, AttributeError) as error:
        raise TargetError(
            f"The target {name!r} cannot be loaded: {error}.",
            hint=f"Install what it needs, or repair {entry.value}.",
        ) from error


@cache
def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - 20 ms, and few commands deploy

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
