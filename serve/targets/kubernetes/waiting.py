"""Waits until a revision answers, and finds out why it does not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import DeploymentFailedError, FieldpostError, UnreachableError
from serve.targets.kubernetes import rollout, troubles
from serve.targets.kubernetes.faults import ClusterError, MissingError
from serve.targets.kubernetes.rollout import Count, View
from serve.targets.kubernetes.troubles import Trouble
from serve.targets.kubernetes.watching import Doorbell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serve.targets.base import Progress
    from serve.targets.kubernetes.client import Cluster

PULL_S = 300.0
"""More time for nodes that fetch the image."""

_LOOK_S = 2.0
_TAIL = 60


class Place(NamedTuple):
    """Where a deployment is in a cluster.

    Attributes:
        cluster: The cluster.
        name: Of the Deployment.
        selector: Labels of its pods.
    """

    cluster: Cluster
    name: str
    selector: Mapping[str, str]


def look(place: Place, *, events: bool = True) -> View:
    """What the cluster says now.

    Raises:
        MissingError: There is no such Deployment.
    """
    cluster = place.cluster
    deployment = cluster.get("Deployment", place.name)
    pods = cluster.list("Pod", labels=place.selector).items
    unready = any(not rollout.is_ready(each) for each in pods)
    sets = _of(deployment, cluster.list("ReplicaSet", labels=place.selector).items)
    return View(deployment, pods, _warnings(cluster) if unready and events else (), sets)


class Watch:
    """Waits for a revision.

    Args:
        place: The deployment.
        revision: The revision's number.
        timeout_s: Without getting on.
        progress: Takes sentences.
        clock: Seconds.
    """

    def __init__(
        self,
        place: Place,
        revision: int,
        timeout_s: float,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._revision = revision
        self._timeout_s = timeout_s
        self._progress = progress
        self._clock = clock
        self._since: dict[str, float] = {}
        self._said = ""
        self._last: tuple[object, ...] = ()
        self._moved = clock()
        self._lost: float | None = None

    def until_ready(self) -> View:
        """Returns when the revision answers with all of its pods.

        Raises:
            DeploymentFailedError: It does not, and why.
            UnreachableError: The cluster has not answered for as long as that takes.
            MissingError: Somebody has deleted the Deployment.
        """
        with Doorbell(self._place.cluster, ("Deployment", "Pod"), self._place.selector) as bell:
            while True:
                view = self._look()
                if view is not None and rollout.is_complete(view, self._revision):
                    return view
                bell.wait(_LOOK_S)

    def _look(self) -> View | None:
        began = self._clock()
        try:
            view = look(self._place)
        except UnreachableError as error:
            self._lost = began if self._lost is None else self._lost
            self._tell(f"{error.message} Waiting for it")
            if self._clock() - self._moved > self._timeout_s + PULL_S:
                raise
            return None
        if self._lost is not None:  # nothing could get on, or be seen to
            self._moved += self._clock() - self._lost
            self._lost = None
        if not rollout.is_complete(view, self._revision):
            self._judge(view)
        return view

    def _judge(self, view: View) -> None:
        """Raises where the revision will not get ready."""
        count = rollout.count(view, self._revision)
        found = troubles.trouble(view, self._revision)
        self._note_moves(count, rollout.is_pulling(view, self._revision))
        self._tell(_sentence(count, found))
        if found is None:
            self._since = {}
        elif self._is_over(found):
            raise self._failed(found)
        more = PULL_S if rollout.is_pulling(view, self._revision) else 0.0
        late = self._clock() - self._moved > self._timeout_s + more
        if late or rollout.is_stuck(view.deployment):
            raise self._too_late(found, count)

    def _note_moves(self, *seen: object) -> None:
        if seen != self._last:
            self._last, self._moved = seen, self._clock()

    def _is_over(self, found: Trouble) -> bool:
        # One that went away and comes back is a new one.
        self._since = {found.key: self._since.get(found.key, self._clock())}
        since = self._since[found.key]
        return found.patience_s is not None and self._clock() - since >= found.patience_s

    def _failed(self, found: Trouble) -> DeploymentFailedError:
        detail = self._log(found)
        if "exec format error" in detail.lower():
            return DeploymentFailedError(
                f"The image is for another platform than the node of the pod {found.pod}: exec "
                "format error.",
                hint="Build the package for that platform too: 'fieldpost package build "
                "--platform …'.",
                detail=detail,
            )
        return DeploymentFailedError(found.message, hint=found.hint, detail=detail)

    def _too_late(self, found: Trouble | None, count: Count) -> DeploymentFailedError:
        if found is not None:
            return self._failed(found)
        return DeploymentFailedError(
            f"{count.ready} of {count.wanted} pods were ready within {self._timeout_s:g} s.",
            hint="Give it more time: --set ready_timeout_s=SECONDS.",
        )

    def _log(self, found: Trouble) -> str:
        """The end of the pod's log; what cannot be read is no reason of its own."""
        for previous in (found.previous, not found.previous) if found.pod else ():
            try:
                lines = list(
                    self._place.cluster.logs(
                        found.pod,
                        container=found.container or None,
                        tail=_TAIL,
                        previous=previous,
                    )
                )
            except FieldpostError:
                continue
            if lines:
                return "\n".join(lines)
        return ""

    def _tell(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self._progress(sentence)


def _sentence(count: Count, found: Trouble | None) -> str:
    text = f"{count.ready} of {count.wanted} pods ready"
    if count.old:
        text += f", {count.old} of the revision before"
    return f"{text}: {found.message}" if found is not None else text


def _warnings(cluster: Cluster) -> list[dict[str, object]]:
    """Warnings about pods: they say more, and may not be readable."""
    try:
        fields = "involvedObject.kind=Pod,type=Warning"
        return cluster.list("Event", fields=fields).items
    except (ClusterError, MissingError):
        return []


def _of(deployment: dict[str, object], items: list[dict[str, object]]) -> list[dict[str, object]]:
    """The ReplicaSets of a Deployment that are of its present template."""
    revision = rollout.revision_of(deployment)
    return [each for each in items if rollout.revision_of(each) == revision]
