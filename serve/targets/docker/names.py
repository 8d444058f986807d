"""What a deployment's containers and volumes are called, and the labels by which they are found."""

from __future__ import annotations

from typing import NamedTuple

PREFIX = "dev.fieldpost."
WORKSPACE = PREFIX + "workspace"
DEPLOYMENT = PREFIX + "deployment"
REVISION = PREFIX + "revision"
ROLE = PREFIX + "role"
SLOT = PREFIX + "slot"
FRONT_SPEC = PREFIX + "front"
RUN = PREFIX + "run"
PACKAGE = PREFIX + "package"

FRONT, WORKER = "front", "worker"

_ID_DIGITS = 6


class Names(NamedTuple):
    """Of one deployment of one workspace.

    Attributes:
        workspace: The workspace's identity: others' containers are never touched.
        deployment: Its name.
    """

    workspace: str
    deployment: str

    @property
    def labels(self) -> dict[str, str]:
        """On everything that belongs to the deployment."""
        return {WORKSPACE: self.workspace, DEPLOYMENT: self.deployment}

    @property
    def base(self) -> str:
        """The beginning of all names."""
        return f"fieldpost-{self.deployment}-{self.workspace[:_ID_DIGITS]}"

    def front(self, revision: int) -> str:
        """The container that holds the port, made for this revision and kept by later ones."""
        return f"{self.base}-front{revision}"

    def run(self, revision: int) -> str:
        """The volume that a front shares with its workers."""
        return f"{self.base}-run{revision}"

    def worker(self, revision: int, slot: int) -> str:
        """The container of a worker."""
        return f"{self.base}-r{revision}-w{slot}"


def source(revision: int, slot: int) -> str:
    """A worker as logs and the front name it: `r3/w0`."""
    return f"r{revision}/w{slot}"
