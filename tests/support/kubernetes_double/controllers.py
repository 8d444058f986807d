"""What a cluster's controllers and nodes do: Deployments, ReplicaSets, pods that get on or fail."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.support.kubernetes_double.store import Object, Store, now, walk_owned

_HASH = "pod-template-hash"
_TICK_S = 0.02
_IDLE_S = 0.25


class Outcome(NamedTuple):
    """What becomes of a pod.

    Attributes:
        kind: `ready`, `image`, `crash`, `oom`, `unschedulable`, `probe`, `config`, `completed`.
        message: Of the kubelet, or of the scheduler.
        exit_code: Of a container that ends.
        log: What it writes.
        restarts: After how many it is ready after all; -1 for never.
    """

    kind: str = "ready"
    message: str = ""
    exit_code: int = 1
    log: tuple[str, ...] = ("loading", "ready")
    restarts: int = -1


READY = Outcome()


class Controllers:
    """Turns the wheels of one store until it is stopped."""

    def __init__(self, store: Store) -> None:
        self.outcome: Callable[[Object], Outcome] = lambda _pod: READY
        self.quota: int | None = None
        self.refuse: str = ""
        self.logs: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.previous: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.paused = threading.Event()
        self._store = store
        self._stop = threading.Event()
        self._progress: dict[str, tuple[tuple[int, ...], float]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failures: list[BaseException] = []

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; raises what went wrong in between."""
        self._stop.set()
        self._thread.join(10)
        if self.failures:
            raise self.failures[0]

    def _run(self) -> None:
        seen, turned = -1, 0.0
        while not self._stop.wait(_TICK_S):
            # Without a change only time, and what tests say, may make a difference.
            idle = self._store.version == seen and time.monotonic() - turned < _IDLE_S
            if self.paused.is_set() or idle:
                continue
            try:
                with self._store.lock:
                    self._turn()
                    seen, turned = self._store.version, time.monotonic()
            except BaseException as error:  # noqa: BLE001 - told by `stop`
                self.failures.append(error)
                return

    def _turn(self) -> None:
        kinds = self._store.kinds
        for deployment in self._store.list(kinds["deployments.apps"], None)[0]:
            self._deployment(deployment)
        for each in self._store.list(kinds["replicasets.apps"], None)[0]:
            self._replica_set(each)
        for pod in self._store.list(kinds["pods"], None)[0]:
            self._pod(pod)

    def _deployment(self, item: Object) -> None:
        kind = self._store.kinds["replicasets.apps"]
        spec, space = item["spec"], item["metadata"]["namespace"]
        digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()
        name = f"{item['metadata']['name']}-{digest[:9]}"
        sets = list(walk_owned(self._store, kind, item))
        current = next((each for each in sets if each["metadata"]["name"] == name), None)
        if current is None:
            current = self._store.put(
                kind, _replica_set(item, name, digest[:9], len(sets)), "ADDED"
            )
            sets.append(current)
        others = [each for each in sets if each["metadata"]["name"] != name]
        self._roll(item, current, others, space)
        self._tell(item, current, others)

    def _roll(self, item: Object, current: Object, others: list[Object], space: str) -> None:
        """Moves from the old to the new within what the strategy allows."""
        wanted = int(item["spec"]["replicas"])
        rolling = item["spec"]["strategy"].get("rollingUpdate") or {}
        surge = _share(rolling.get("maxSurge", "25%"), wanted, math.ceil)
        lack = _share(rolling.get("maxUnavailable", "25%"), wanted, math.floor)
        if surge == lack == 0:
            lack = 1
        old = sum(each["spec"]["replicas"] for each in others)
        has = current["spec"]["replicas"]
        room = max(wanted + surge - old - has, 0)  # what there is too much of goes elsewhere
        self._scale(current, min(has + room, wanted), space)
        available = sum(self._ready(each) for each in (current, *others))
        spare = available - (wanted - lack)
        for each in others:
            unready = each["spec"]["replicas"] - self._ready(each)
            fewer = max(each["spec"]["replicas"] - unready - max(spare, 0), 0)
            fewer = min(fewer, each["spec"]["replicas"])
            spare -= self._ready(each) - min(fewer, self._ready(each))
            self._scale(each, fewer, space)

    def _scale(self, item: Object, count: int, space: str) -> None:
        if item["spec"]["replicas"] != count:
            item["spec"]["replicas"] = count
            item["metadata"]["generation"] = item["metadata"].get("generation", 1) + 1
            self._store.put(self._store.kinds["replicasets.apps"], item, "MODIFIED")

    def _ready(self, item: Object) -> int:
        return sum(_is_ready(pod) for pod in self._pods(item))

    def _pods(self, item: Object) -> list[Object]:
        found = walk_owned(self._store, self._store.kinds["pods"], item)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def _tell(self, item: Object, current: Object, others: list[Object]) -> None:
        wanted = int(item["spec"]["replicas"])
        pods, ready = self._pods(current), self._ready(current)
        old = [pod for each in others for pod in self._pods(each)]
        total_ready = ready + sum(map(_is_ready, old))
        status: Object = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": len(pods) + len(old),
            "updatedReplicas": len(pods),
            "readyReplicas": total_ready,
            "availableReplicas": total_ready,
            "unavailableReplicas": max(wanted - total_ready, 0),
            "conditions": self._conditions(item, current, wanted, ready, len(pods), len(old)),
        }
        status = {key: value for key, value in status.items() if value not in (0, [])}
        kind = self._store.kinds["deployments.apps"]
        space, name = item["metadata"]["namespace"], item["metadata"]["name"]
        self._store.set_status(kind, space, name, status)

    def _conditions(
        self, item: Object, current: Object, wanted: int, ready: int, made: int, old: int
    ) -> list[Object]:
        uid = item["metadata"]["uid"]
        seen = (item["metadata"]["generation"], ready, made, old)
        last, since = self._progress.get(uid, ((), 0.0))
        if last != seen:
            self._progress[uid] = (seen, time.monotonic())
            since = time.monotonic()
        complete = ready >= wanted and made == wanted and old == 0
        late = time.monotonic() - since > item["spec"]["progressDeadlineSeconds"]
        if complete:
            progressing = ("True", "NewReplicaSetAvailable", "has successfully progressed")
        elif late:
            progressing = ("False", "ProgressDeadlineExceeded", "has timed out progressing")
        else:
            progressing = ("True", "ReplicaSetUpdated", "is progressing")
        name = current["metadata"]["name"]
        found = [
            {
                "type": "Progressing",
                "status": progressing[0],
                "reason": progressing[1],
                "message": f'ReplicaSet "{name}" {progressing[2]}.',
            }
        ]
        failed = (current.get("status") or {}).get("conditions")
        return [*found, *(failed or ())]

    def _replica_set(self, item: Object) -> None:
        kind, pods = self._store.kinds["pods"], self._pods(item)
        wanted, space = item["spec"]["replicas"], item["metadata"]["namespace"]
        surplus = sorted(pods, key=_is_ready)[: max(len(pods) - wanted, 0)]
        for pod in surplus:
            self._store.delete(kind, space, pod["metadata"]["name"])
        failure = ""
        for _ in range(wanted - len(pods)):
            failure = self._refusal(space)
            if failure:
                break
            self._store.put(kind, _new_pod(item), "ADDED")
        status: Object = {"replicas": len(pods)}
        if failure:
            told = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
            status["conditions"] = [{**told, "message": failure}]
        self._store.set_status(
            self._store.kinds["replicasets.apps"], space, item["metadata"]["name"], status
        )

    def _refusal(self, space: str) -> str:
        if self.refuse:
            return self.refuse
        many = len(self._store.list(self._store.kinds["pods"], space)[0])
        if self.quota is not None and many >= self.quota:
            return (
                'pods "x" is forbidden: exceeded quota: team, requested: pods=1, '
                f"used: pods={many}, limited: pods={self.quota}"
            )
        return ""

    def _pod(self, pod: Object) -> None:
        kind = self._store.kinds["pods"]
        if "deletionTimestamp" in pod["metadata"]:
            self._store.drop(kind, pod)
            return
        if not (pod["metadata"].get("ownerReferences") or ()):
            return
        outcome = self.outcome(pod)
        status = pod.get("status") or {}
        if outcome.kind == "unschedulable":
            message = outcome.message or "0/1 nodes are available: 1 Insufficient cpu."
            self._set(pod, _status("Pending", unscheduled=message))
            return
        if "nodeName" not in pod["spec"]:
            pod["spec"]["nodeName"] = "node-1"
            self._store.put(kind, {**pod, "status": _waiting("ContainerCreating")}, "MODIFIED")
            return
        self._step(pod, outcome, status)

    def _unnamed(self, pod: Object) -> str:
        """What a container takes its environment from and is not there."""
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom") or ():
                for key, plural in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
                    name = (source.get(key) or {}).get("name")
                    kind, space = self._store.kinds[plural], pod["metadata"]["namespace"]
                    if name and self._store.find(kind, space, name) is None:
                        return f'{kind.kind.lower()} "{name}" not found'
        return ""

    def _step(self, pod: Object, outcome: Outcome, status: Object) -> None:
        missing = self._unnamed(pod)
        if missing and not _is_ready(pod):
            self._set(pod, _waiting("CreateContainerConfigError", missing))
            return
        containers = status.get("containerStatuses") or [{}]
        restarts = containers[0].get("restartCount", 0)
        if outcome.kind == "ready" or restarts == outcome.restarts:
            if not _is_ready(pod):
                self._write(pod, outcome.log)
            self._set(pod, _running(ready=True, restarts=restarts))
        elif outcome.kind == "image":
            self._set(pod, _waiting("ImagePullBackOff", outcome.message))
        elif outcome.kind == "config":
            self._set(pod, _waiting("CreateContainerConfigError", outcome.message))
        elif outcome.kind == "probe":
            if "message" not in pod["metadata"].get("annotations", {}):
                self._event(pod, "Unhealthy", outcome.message or "Readiness probe failed")
            self._write(pod, outcome.log)
            self._set(pod, _running(ready=False, restarts=0))
        elif restarts < 1 or outcome.restarts > restarts:
            self._write(pod, outcome.log)
            self._keep_log(pod)
            self._set(pod, _crashed(outcome, restarts + 1))

    def _set(self, pod: Object, status: Object) -> None:
        # The time of a condition is that of its change.
        metadata = pod["metadata"]
        self._store.set_status(
            self._store.kinds["pods"], metadata["namespace"], metadata["name"], status
        )

    def _write(self, pod: Object, lines: tuple[str, ...]) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.logs.setdefault(key, [])
        if not self.logs[key]:
            self.logs[key] = [(now(), each) for each in lines]

    def _keep_log(self, pod: Object) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.previous[key] = self.logs.pop(key, [])

    def _event(self, pod: Object, reason: str, message: str) -> None:
        metadata = pod["metadata"]
        name = f"{metadata['name']}.{reason.lower()}"
        kind = self._store.kinds["events"]
        if self._store.find(kind, metadata["namespace"], name) is None:
            item = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": metadata["namespace"]},
                "involvedObject": {
                    "kind": "Pod",
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    "uid": metadata["uid"],
                },
                "reason": reason,
                "message": message,
                "type": "Warning",
                "count": 1,
                "lastTimestamp": now(),
            }
            self._store.put(kind, item, "ADDED")


def _replica_set(item: Object, name: str, digest: str, before: int) -> Object:
    template = json.loads(json.dumps(item["spec"]["template"]))
    template["metadata"].setdefault("labels", {})[_HASH] = digest
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": item["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": {"deployment.kubernetes.io/revision": str(before + 1)},
            "ownerReferences": [_owner(item)],
            "generation": 1,
        },
        "spec": {"replicas": 0, "template": template},
    }


def _new_pod(item: Object) -> Object:
    suffix = hashlib.sha256(str(time.monotonic_ns()).encode()).hexdigest()[:5]
    template = item["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **template["metadata"],
            "name": f"{item['metadata']['name']}-{suffix}",
            "namespace": item["metadata"]["namespace"],
            "ownerReferences": [_owner(item)],
        },
        "spec": json.loads(json.dumps(template["spec"])),
        "status": {"phase": "Pending"},
    }


def _owner(item: Object) -> Object:
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "name": item["metadata"]["name"],
        "uid": item["metadata"]["uid"],
        "controller": True,
    }


def _share(value: Any, wanted: int, rounded: Callable[[float], int]) -> int:
    if isinstance(value, str):
        return rounded(wanted * int(value.rstrip("%")) / 100)
    return int(value)


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _status(phase: str, *, ready: bool = False, unscheduled: str = "") -> Object:
    scheduled: Object = {"type": "PodScheduled", "status": "False" if unscheduled else "True"}
    if unscheduled:
        scheduled |= {"reason": "Unschedulable", "message": unscheduled}
    return {
        "phase": phase,
        "conditions": [scheduled, {"type": "Ready", "status": "True" if ready else "False"}],
    }


def _container(state: Object, *, ready: bool, restarts: int, last: Object | None = None) -> Object:
    found = {"name": "server", "ready": ready, "restartCount": restarts, "state": state}
    return found | ({"lastState": last} if last else {})


def _waiting(reason: str, message: str = "") -> Object:
    state = {"waiting": {"reason": reason, "message": message}}
    return _status("Pending") | {"containerStatuses": [_container(state, ready=False, restarts=0)]}


def _running(*, ready: bool, restarts: int) -> Object:
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    return _status("Running", ready=ready) | {
        "startTime": "2026-01-01T00:00:00Z",
        "podIP": "10.0.0.9",
        "containerStatuses": [_container(state, ready=ready, restarts=restarts)],
    }


def _crashed(outcome: Outcome, restarts: int) -> Object:
    reason = "OOMKilled" if outcome.kind == "oom" else "Error"
    code = 137 if outcome.kind == "oom" else outcome.exit_code
    if outcome.kind == "completed":
        reason, code = "Completed", 0
    last = {"terminated": {"exitCode": code, "reason": reason, "message": outcome.message}}
    state = {
        "waiting": {
            "reason": "CrashLoopBackOff",
            "message": "back-off 10s restarting failed container=server",
        }
    }
    return _status("Running") | {
        "containerStatuses": [_container(state, ready=False, restarts=restarts, last=last)]
    }
