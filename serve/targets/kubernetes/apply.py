"""Applies the objects of a revision: all of them are checked before any is changed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from serve.targets.kubernetes.faults import ChangedError, ClusterError, FieldConflictError
from serve.targets.kubernetes.kinds import Object, find_kind, name_of, title_of
from serve.targets.kubernetes.ownership import (
    Owner,
    identity,
    others_own,
    owns_field,
    require_ours,
)
from serve.targets.kubernetes.prune import owned_objects
from serve.targets.kubernetes.yielding import without

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from serve.targets.base import Progress
    from serve.targets.kubernetes.client import Cluster

SCALER_MANAGER = "fieldpost-scaler"
"""Holds the number of pods between us and a scaler that takes it over."""

_SCALERS = (find_kind("HorizontalPodAutoscaler"), find_kind("ScaledObject"))
_REPLICAS = ".spec.replicas"
_ATTEMPTS = 5
_NO_DRY_RUN = ("does not support dry run", "dry run is not supported")


class Prepared(NamedTuple):
    """What is to be applied, after a look at what is there.

    Attributes:
        objects: They, without what others own by right.
        live: What is there of them now, by kind and name.
        leaving: Scalers of ours that set the number of pods and are to do so no longer.
    """

    objects: tuple[Object, ...]
    live: dict[tuple[str, str], Object | None]
    leaving: tuple[Object, ...] = ()


class Applier:
    """Applies the objects of one deployment.

    Args:
        cluster: Where.
        owner: Whose they are.
        progress: Takes sentences.
        force: Take over the fields that others own.
        counts: Take over the number of pods: it is what the user asks for.
        yields: Leave to others what they own, and say so, instead of refusing.
    """

    def __init__(
        self,
        cluster: Cluster,
        owner: Owner,
        progress: Progress,
        *,
        force: bool = False,
        counts: bool = False,
        yields: bool = False,
    ) -> None:
        self._cluster = cluster
        self._owner = owner
        self._progress = progress
        self._force = force
        self._counts = counts
        self._yields = yields

    def prepare(self, objects: Sequence[Object]) -> Prepared:
        """Looks at what is there; nothing is changed.

        Raises:
            AlreadyExistsError: An object of that name is somebody else's.
        """
        live: dict[tuple[str, str], Object | None] = {}
        for item in objects:
            found = self._cluster.find(str(item["kind"]), name_of(item))
            require_ours(item, found, self._owner, self._cluster.where)
            live[identity(item)] = found
        kept = tuple(self._with_replicas(item, objects, live) for item in objects)
        return Prepared(kept, live, tuple(self._leaving(objects)))

    def check(self, prepared: Prepared) -> list[Object]:
        """Has the cluster check all of it, and stores nothing; the objects as they would be.

        Raises:
            FieldConflictError: Others own fields; all of them are named.
            ClusterError: The cluster refuses one.
        """
        conflicts: list[FieldConflictError] = []
        found: list[Object] = []
        for item in prepared.objects:
            try:
                found.append(self._apply_one(item, prepared, dry_run=True))
            except FieldConflictError as error:
                conflicts.append(error)
            except ClusterError as error:
                if not any(text in error.message for text in _NO_DRY_RUN):
                    raise
                found.append(item)  # a webhook that cannot be asked: it will say so in earnest
        if conflicts:
            raise _joined(conflicts)
        return found

    def apply(self, prepared: Prepared) -> list[Object]:
        """Applies all of it; the objects as they are now.

        Raises:
            ClusterError: The cluster refuses one, after it took those before it.
        """
        for each in prepared.leaving:  # it would go on changing the number of pods
            self._cluster.delete(str(each["kind"]), name_of(each), uid=each["metadata"]["uid"])
            self._progress(f"removed {title_of(each)}")
        found = []
        for item in prepared.objects:
            self._hand_over(item, prepared.live)
            found.append(self._apply_one(item, prepared))
            if prepared.live[identity(item)] is None:
                self._progress(f"made {title_of(item)}")
        return found

    def _apply_one(self, item: Object, prepared: Prepared, *, dry_run: bool = False) -> Object:
        """Applies one; what we, or scalers of ours, hold under another name gives way."""
        try:
            return self._send(item, force=self._force, dry_run=dry_run)
        except FieldConflictError as error:
            pairs = list(zip(error.fields, error.managers, strict=True))
            theirs = [pair for pair in pairs if not self._gives_way(*pair, prepared)]
            if theirs and not self._yields:
                raise
            for field, name in theirs:
                self._progress(f"{field} of {title_of(item)} is left to {name!r}")
            kept = without(item, [field for field, _ in theirs])
            return self._send(kept, force=True, dry_run=dry_run)

    def _gives_way(self, field: str, manager: str, prepared: Prepared) -> bool:
        """Whether a field may be taken over from its owner without asking the user."""
        if manager == SCALER_MANAGER:
            return True
        return field == _REPLICAS and (self._counts or bool(prepared.leaving))

    def _send(self, item: Object, *, force: bool, dry_run: bool) -> Object:
        """Applies one, again where something else (a quota, say) changed under the cluster."""
        for attempt in Retrying(
            retry=retry_if_exception_type(ChangedError),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(0.1, max=1.0),
            reraise=True,
        ):
            with attempt:
                return self._cluster.apply(item, force=force, dry_run=dry_run)
        raise AssertionError("tenacity gives up by raising")

    def _leaving(self, objects: Sequence[Object]) -> Iterator[Object]:
        wanted = {identity(each) for each in objects}
        for item in owned_objects(self._cluster, self._owner, _SCALERS):
            if identity(item) not in wanted:
                yield item

    def _with_replicas(
        self,
        item: Object,
        objects: Sequence[Object],
        live: Mapping[tuple[str, str], Object | None],
    ) -> Object:
        """A Deployment with the number of pods, or without where something else sets it.

        An autoscaler leaves alone what has no pods at all: after a stop it needs a first one.
        """
        if item["kind"] != "Deployment":
            return item
        rests, least = self._rests(live[identity(item)]), max(map(_least, objects))
        if "replicas" not in item["spec"] and rests and least:
            return {**item, "spec": {**item["spec"], "replicas": least}}
        return item if rests or "replicas" not in item["spec"] else self._left_alone(item, objects)

    def _rests(self, live: Object | None) -> bool:
        """Whether it has no pods, and may have some: others may have wanted it so."""
        none = live is not None and (live.get("spec") or {}).get("replicas") == 0
        return none and (self._counts or not others_own(live or {}, "spec", "replicas"))

    def _left_alone(self, item: Object, objects: Sequence[Object]) -> Object:
        """Without the number of pods, where a scaler of somebody else's sets it."""
        mine = {identity(each) for each in objects}
        scaler = self._foreign_scaler(name_of(item), mine)
        if scaler is None or item["spec"]["replicas"] == 0:
            return item
        self._progress(f"{title_of(scaler)} sets the number of pods: it is left alone")
        found = copy.deepcopy(item)
        del found["spec"]["replicas"]
        return found

    def _foreign_scaler(self, name: str, mine: set[tuple[str, str]]) -> Object | None:
        """What scales the Deployment and is none of ours, which go where they are not wanted."""
        for each in self._cluster.list("HorizontalPodAutoscaler").items:
            target = (each.get("spec") or {}).get("scaleTargetRef") or {}
            fits = target.get("kind") == "Deployment" and target.get("name") == name
            if fits and identity(each) not in mine and not self._is_ours(each):
                return each
        return None

    def _is_ours(self, item: Object) -> bool:
        references = (item.get("metadata") or {}).get("ownerReferences") or ()
        by_keda = any(each.get("kind") == "ScaledObject" for each in references)
        return self._owner.made(item) or (by_keda and self._owner.has(item))

    def _hand_over(self, item: Object, live: Mapping[tuple[str, str], Object | None]) -> None:
        """Lets go of the number of pods without the cluster falling back to one.

        A field that its only owner gives up is removed, and comes back as its default. So it is
        held under another name until the scaler has taken it.
        """
        now = live[identity(item)]
        if now is None or item["kind"] != "Deployment" or "replicas" in item["spec"]:
            return
        if owns_field(now, "spec", "replicas") and not others_own(now, "spec", "replicas"):
            held = {
                "apiVersion": item["apiVersion"],
                "kind": item["kind"],
                "metadata": {"name": name_of(item), "namespace": item["metadata"]["namespace"]},
                "spec": {"replicas": now["spec"]["replicas"]},
            }
            self._cluster.apply(held, manager=SCALER_MANAGER)


def _least(item: Object) -> int:
    """The fewest pods that a scaler leaves; 0 for none, and for other objects."""
    spec = item.get("spec") or {}
    named = {"HorizontalPodAutoscaler": "minReplicas", "ScaledObject": "minReplicaCount"}
    return int(spec.get(named.get(item["kind"], ""), 0))


def _joined(conflicts: Sequence[FieldConflictError]) -> FieldConflictError:
    """All conflicts as one error."""
    if len(conflicts) == 1:
        return conflicts[0]
    error = FieldConflictError(" ".join(each.message for each in conflicts), hint=conflicts[0].hint)
    error.status, error.reason = conflicts[0].status, conflicts[0].reason
    error.fields = tuple(field for each in conflicts for field in each.fields)
    error.managers = tuple(name for each in conflicts for name in each.managers)
    return error
