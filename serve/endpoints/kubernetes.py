"""Endpoints on a cluster: applied, read back, taken away; nothing of ours runs there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from scoring.errors import (
    AlreadyExistsError,
    MissingDependencyError,
    NotFoundError,
    TargetError,
    UnreachableError,
    UsageError,
)
from serve.endpoints import kubernetes_objects as objects
from serve.endpoints import records
from serve.endpoints.front.stats import Counts, Report
from serve.endpoints.kubernetes_objects import Behind, ClusterSettings, Place
from serve.endpoints.podmetrics import counts_of
from serve.endpoints.views import BackendView
from serve.targets.base import Route, Status
from serve.targets.kubernetes import labels
from serve.targets.kubernetes.names import base_name
from serve.targets.settings import parse_settings

if TYPE_CHECKING:
    from serve.endpoints.traffic import Traffic
    from serve.registry import Registry
    from serve.registry.records import Endpoint
    from serve.targets.kubernetes.access import Access
    from serve.targets.kubernetes.client import Cluster

Object = dict[str, Any]

MANAGER = "fieldpost-endpoint"
"""The field manager of endpoints, beside that of deployments."""

_METRICS_S = 5.0
_KEY = "FIELDPOST_API_KEY"
_OK = 200
_ROUTE, _SERVICE, _DEPLOYMENT = "HTTPRoute", "Service", "Deployment"


class Clusters:
    """The endpoints of a workspace on clusters.

    Args:
        registry: The workspace's.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def check(self, name: str, traffic: Traffic, settings: Mapping[str, str]) -> None:
        """What can be wrong before anything is written.

        Raises:
            UsageError: A setting is unknown, the deployments are in different places, or the
                traffic is of a kind that neither route nor Service has.
            TargetError: The cluster lacks what is needed.
        """
        with self._open(name, traffic, settings) as opened:
            opened.check()

    def apply(self, record: Endpoint) -> str:
        """Makes the cluster follow the record.

        Returns:
            The URL of the endpoint.

        Raises:
            AlreadyExistsError: Something else of its name is there.
            TargetError: The cluster refuses it.
        """
        traffic = records.traffic_of(record)
        with self._open(record.name, traffic, record.settings) as opened:
            opened.check()
            return opened.apply(self._former(traffic))

    def status(self, record: Endpoint) -> tuple[Status, tuple[BackendView, ...]]:
        """What the cluster really does, and how its deployments stand."""
        traffic = records.traffic_of(record)
        try:
            with self._open(record.name, traffic, record.settings) as opened:
                return opened.status()
        except (TargetError, UsageError, MissingDependencyError) as error:
            return Status(state="down", url=record.address, note=error.message), ()

    def reports(self, record: Endpoint, names: Iterable[str]) -> list[Report]:
        """What the pods of deployments have counted, one report for each pod.

        Raises:
            TargetError: The cluster does not answer, or does not let their metrics be read.
        """
        traffic = records.traffic_of(record)
        with self._open(record.name, traffic, record.settings) as opened:
            return [report for name in names for report in opened.reports(name)]

    @contextlib.contextmanager
    def reach(self, record: Endpoint) -> Iterator[Route]:
        """Its URL, or a way through the cluster's API where that is the name of a Service."""
        from serve.targets.kubernetes.relay import out_of_reach, relay  # noqa: PLC0415 - lightkube

        service = out_of_reach(record.address)
        if service is None:
            yield Route(record.address, record.address)
            return
        traffic = records.traffic_of(record)
        with (
            self._open(record.name, traffic, record.settings) as opened,
            relay(opened.access, service) as route,
        ):
            yield route

    def remove(self, record: Endpoint) -> None:
        """Takes the objects of the endpoint away; its deployments stay as they are."""
        traffic = records.traffic_of(record)
        with self._open(record.name, traffic, record.settings) as opened:
            opened.remove()

    def _former(self, traffic: Traffic) -> list[str]:
        """Deployments of the cluster that may have been behind the endpoint before."""
        known = [each for each in self._registry.deployments.list() if each.target == "kubernetes"]
        return [each.name for each in known if each.name not in traffic.weights]

    def _open(self, name: str, traffic: Traffic, settings: Mapping[str, str]) -> _Opened:
        try:
            from serve.targets.kubernetes.access import find_access  # noqa: PLC0415
            from serve.targets.kubernetes.client import Cluster  # noqa: PLC0415
            from serve.targets.kubernetes.home import find_home, workspace_identity  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError(
                f"The cluster's client is not installed: {error}.",
                hint="Install it: pip install 'fieldpost[kubernetes]'.",
            ) from error
        location = self._registry.location.secret_text()
        homes = {each: find_home(location, each) for each in traffic.deployments}
        places = {(home.context, home.server, home.namespace) for home in homes.values() if home}
        if len(places) != 1 or not all(homes.values()):
            raise UsageError(
                "The deployments of an endpoint have to be in one namespace of one cluster.",
                hint="'fieldpost deployment show NAME' says where each one is.",
            )
        context, _, namespace = places.pop()
        place = Place(name, namespace, workspace_identity(location))
        parsed = parse_settings(ClusterSettings, settings)
        cluster = Cluster(find_access(context), namespace=namespace)
        return _Opened(cluster, place, traffic, parsed)


class _Opened:
    """One endpoint on its cluster, with a connection to it."""

    def __init__(
        self, cluster: Cluster, place: Place, traffic: Traffic, settings: ClusterSettings
    ) -> None:
        self._cluster = cluster
        self._place = place
        self._traffic = traffic
        self._settings = settings
        self._behind: dict[str, Behind] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.close()

    @property
    def access(self) -> Access:
        """To the cluster."""
        return self._cluster.access

    @property
    def _routes(self) -> bool:
        return bool(self._settings.gateway)

    def check(self) -> None:
        """See `Clusters.check`."""
        if self._routes and not self._cluster.has(_ROUTE):
            raise TargetError(
                f"{self._cluster.where} does not have the Gateway API.",
                hint="Install it with a controller of your choice, or leave --set gateway out: "
                "one Service then spreads the requests by the number of pods.",
            )
        self._behind = {name: self._look(name) for name in self._traffic.deployments}
        if self._routes:
            self._require_ours(_ROUTE)
            objects.http_route(self._place, self._traffic, self._behind, self._settings)
            return
        objects.require_plain(self._traffic)
        self._require_ours(_SERVICE)
        objects.service(self._place, self._behind, self._settings)
        for behind in self._behind.values():
            self._require_unscaled(behind)

    def apply(self, former: list[str]) -> str:
        """Applies it; `check` comes first."""
        if self._routes:
            route = objects.http_route(self._place, self._traffic, self._behind, self._settings)
            self._cluster.apply(route, manager=MANAGER)
            return self._url()
        counts = self._pods()
        for name, behind in self._behind.items():
            self._join(behind, counts.get(name))
        for name in former:
            self._leave(base_name(name))
        service = objects.service(self._place, self._behind, self._settings)
        self._cluster.apply(service, manager=MANAGER)
        return self._url()

    def status(self) -> tuple[Status, tuple[BackendView, ...]]:
        """See `Clusters.status`."""
        kind = _ROUTE if self._routes else _SERVICE
        found = self._cluster.find(kind, base_name(self._place.name))
        views = self._views()
        if found is None or not self._is_ours(found):
            note = f"There is no {kind} of it in the cluster."
            return Status(state="down", note=note), views
        state, note = _route_state(found) if self._routes else ("running", "")
        absent = [view.deployment for view in views if view.weight and view.up is False]
        if state == "running" and absent:
            state, note = "degraded", f"No pod of {', '.join(absent)} is ready."
        return Status(state=state, url=self._url(), note=note), views  # type: ignore[arg-type]

    def remove(self) -> None:
        """See `Clusters.remove`."""
        for kind in (_ROUTE, _SERVICE):
            if kind == _ROUTE and not self._cluster.has(_ROUTE):
                continue
            found = self._cluster.find(kind, base_name(self._place.name))
            if found is not None and self._is_ours(found):
                self._cluster.delete(
                    kind, base_name(self._place.name), uid=found["metadata"]["uid"]
                )
        for name in self._traffic.deployments:
            self._leave(base_name(name))

    def reports(self, name: str) -> list[Report]:
        """See `Clusters.reports`; a deployment without a ready pod is reported as down."""
        found = self._cluster.list("Pod", labels=labels.selector(base_name(name))).items
        told = [self._report(name, pod) for pod in found if _is_ready(pod)]
        return [each for each in told if each] or [_report(name, "", Counts(), up=False)]

    def _report(self, name: str, pod: Object) -> Report | None:
        """What a pod tells; None for one that has gone, or hangs, since the list was made."""
        try:
            lines = pod_metrics(self._cluster, pod, os.environ.get(_KEY, ""))
        except (NotFoundError, UnreachableError):
            return None
        return _report(name, str(pod["metadata"]["uid"]), counts_of(lines), up=True)

    def _look(self, name: str) -> Behind:
        """A deployment as the cluster has it now."""
        base = base_name(name)
        service = self._cluster.find(_SERVICE, base)
        deployment = self._cluster.find(_DEPLOYMENT, base)
        if service is None or deployment is None:
            raise TargetError(
                f"The deployment {name!r} is not on {self._cluster.where}.",
                hint=f"Bring it back: 'fieldpost deployment start {name}'.",
            )
        port = service["spec"]["ports"][0]
        replicas = int(deployment["spec"].get("replicas", 1))
        return Behind(base, int(port["port"]), port.get("targetPort", port["port"]), replicas)

    def _pods(self) -> dict[str, int]:
        present = sum(each.replicas for each in self._behind.values())
        return objects.pods(self._traffic.weights, self._settings.replicas or present)

    def _join(self, behind: Behind, replicas: int | None) -> None:
        """Puts the pods of a Deployment behind the Service, as many as its weight is worth."""
        from serve.targets.kubernetes.apply import SCALER_MANAGER  # noqa: PLC0415 - lightkube

        member = replicas is not None
        labelled = objects.membership(self._place, behind, member=member, replicas=None)
        self._cluster.apply(labelled, manager=self._member_manager)
        if replicas is not None:
            # Held as a scaler's number is: the deployment's next revision takes it over.
            counted = objects.membership(self._place, behind, member=False, replicas=replicas)
            self._cluster.apply(counted, manager=SCALER_MANAGER, force=True)

    def _leave(self, base: str) -> None:
        """Takes the pods of a Deployment away from behind the Service, where they are."""
        found = self._cluster.find(_DEPLOYMENT, base)
        if found is None or self._place.member not in _pod_labels(found):
            return
        behind = Behind(base, 0)
        empty = objects.membership(self._place, behind, member=False, replicas=None)
        self._cluster.apply(empty, manager=self._member_manager)

    @property
    def _member_manager(self) -> str:
        """One for each endpoint: each has its own label on the pods."""
        return f"{MANAGER}-{base_name(self._place.name)}"

    def _require_unscaled(self, behind: Behind) -> None:
        for each in self._cluster.list("HorizontalPodAutoscaler").items:
            target = each["spec"].get("scaleTargetRef") or {}
            if (target.get("kind"), target.get("name")) == (_DEPLOYMENT, behind.service):
                raise UsageError(
                    f"The number of pods of {behind.service!r} is set by an autoscaler, so that "
                    "it cannot be the share of the requests as well.",
                    hint="Name a Gateway (--set gateway=NAME), or deploy without autoscaling.",
                )

    def _require_ours(self, kind: str) -> None:
        found = self._cluster.find(kind, base_name(self._place.name))
        if found is not None and not self._is_ours(found):
            raise AlreadyExistsError(
                f"{self._cluster.where} has a {kind} {base_name(self._place.name)} in the "
                f"namespace {self._place.namespace!r} already, which is not of this endpoint.",
                hint="Choose another name for the endpoint.",
            )

    def _is_ours(self, item: Object) -> bool:
        found = (item.get("metadata") or {}).get("labels") or {}
        return all(found.get(key) == text for key, text in self._place.labels.items())

    def _views(self) -> tuple[BackendView, ...]:
        """The deployments as they stand: by ready pods, where those are the weight."""
        traffic, shadows = self._traffic, {s.deployment: s.percent for s in self._traffic.shadows}
        named = [*traffic.weights, *(n for n in traffic.deployments if n not in traffic.weights)]
        live = {name: self._cluster.find(_DEPLOYMENT, base_name(name)) for name in named}
        ready = {
            name: _ready(item, self._place.member, routes=self._routes)
            for name, item in live.items()
        }
        total = sum(ready.values())
        return tuple(
            BackendView(
                deployment=name,
                weight=traffic.weights.get(name),
                percent=round(
                    100 * (traffic.share(name) if self._routes else ready[name] / (total or 1)), 2
                ),
                shadow_percent=shadows.get(name),
                up=ready[name] > 0,
            )
            for name in named
        )

    def _url(self) -> str:
        name = base_name(self._place.name)
        if not self._routes:
            port = f":{self._settings.port}" if self._settings.port != 80 else ""  # noqa: PLR2004
            return f"http://{name}.{self._place.namespace}.svc{port}"
        host = self._settings.hostname or self._gateway_address()
        path = self._settings.path if self._settings.path != "/" else ""
        return f"http://{host}{path}" if host else ""

    def _gateway_address(self) -> str:
        namespace, _, name = self._settings.gateway.rpartition("/")
        found = self._cluster.find("Gateway", name, namespace=namespace or None)
        addresses = ((found or {}).get("status") or {}).get("addresses") or ()
        return str(addresses[0].get("value", "")) if addresses else ""


def pod_metrics(cluster: Cluster, pod: Object, key: str = "") -> list[str]:
    """The lines of a pod's `/metrics`, asked through the cluster's API.

    Args:
        cluster: Where it is.
        pod: As the cluster has it.
        key: That the pod's server wants to see; empty for none.

    Raises:
        TargetError: The cluster, or the pod, does not let them be read.
        NotFoundError: The pod is not there any more.
    """
    from serve.targets.kubernetes import faults  # noqa: PLC0415 - few need a cluster
    from serve.targets.kubernetes.relay import own_words  # noqa: PLC0415
    from serve.targets.kubernetes.settings import CONTAINER_PORT  # noqa: PLC0415
    from serve.targets.kubernetes.transport import Transport, reached  # noqa: PLC0415

    name = pod["metadata"]["name"]
    place = f"{'https:' if _speaks_tls(pod) else ''}{name}:{CONTAINER_PORT}"
    path = f"api/v1/namespaces/{cluster.namespace}/pods/{place}/proxy/metrics"
    asked = faults.Asked(f"read the metrics of pod {name}", cluster.where, cluster.namespace)
    headers = [("x-api-key", key)] if key else []
    with contextlib.closing(Transport(cluster.access, _METRICS_S, None)) as transport:
        response = transport.exchange("GET", path, headers, b"", asked, _METRICS_S)
        with contextlib.closing(response):
            status, pieces = own_words(response, asked)
            if status is not None:
                raise faults.refusal(response.status_code, status, asked)
            with reached(asked):
                text = b"".join(pieces).decode(errors="replace")
    if response.status_code != _OK:
        raise TargetError(
            f"The pod {name} does not show its metrics ({response.status_code}).",
            hint="A promotion goes by them. Pods with API keys want one of the scope 'metrics': "
            "put it into the variable FIELDPOST_API_KEY.",
        )
    return text.splitlines()


def _report(name: str, worker: str, counts: Counts, *, up: bool) -> Report:
    return Report(
        worker=worker or f"none/{name}",
        generation=0,
        backends={name: counts},
        shadows={},
        up={name: up},
        weights={},
        connections=0,
        refused={},
    )


def _speaks_tls(pod: Object) -> bool:
    """As the kubelet has to know it, too."""
    probes = [each.get("readinessProbe") or {} for each in pod["spec"].get("containers") or ()]
    return any((probe.get("httpGet") or {}).get("scheme") == "HTTPS" for probe in probes)


def _is_ready(pod: Object) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _pod_labels(deployment: Object) -> Mapping[str, str]:
    template = deployment["spec"].get("template") or {}
    found: Mapping[str, str] = (template.get("metadata") or {}).get("labels") or {}
    return found


def _ready(deployment: Object | None, member: str, *, routes: bool) -> int:
    """Pods that get requests: those behind a Service carry its label."""
    if deployment is None or (not routes and member not in _pod_labels(deployment)):
        return 0
    return int((deployment.get("status") or {}).get("readyReplicas") or 0)


def _route_state(route: Object) -> tuple[str, str]:
    """Whether a gateway has taken the route up as it is now, in the gateway's own words."""
    generation = route["metadata"].get("generation")
    parents = (route.get("status") or {}).get("parents") or ()
    for parent in parents:
        for condition in parent.get("conditions") or ():
            if condition.get("type") not in ("Accepted", "ResolvedRefs"):
                continue
            if condition.get("observedGeneration", generation) != generation:
                return "starting", "The gateway has not taken up the last change yet."
            if condition.get("status") != "True":
                reason = condition.get("message") or condition.get("reason") or "without a reason"
                return "failed", f"The gateway does not take the route: {reason}."
    if not parents:
        return "starting", "No gateway has taken the route up yet."
    return "running", ""
