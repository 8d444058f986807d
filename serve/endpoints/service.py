"""Endpoints as the workspace offers them: created, changed, promoted, shown, deleted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import InUseError, NotFoundError, UsageError
from serve.endpoints import promotion as promotions
from serve.endpoints import records
from serve.endpoints.kubernetes import Clusters
from serve.endpoints.local import LocalFronts
from serve.endpoints.traffic import Traffic, check
from serve.endpoints.views import BackendView, EndpointView, with_counts
from serve.endpoints.window import Window
from serve.registry.names import check_name
from serve.targets.base import Route, ignore

if TYPE_CHECKING:
    import builtins

    from serve.endpoints.front.stats import Report
    from serve.endpoints.promotion import Plan
    from serve.registry import Registry
    from serve.registry.records import Deployment, Endpoint
    from serve.targets.base import Status

Progress = Callable[[str], None]

FRONT, KUBERNETES = "front", "kubernetes"

_SHARES = 2  # decimals of per cent
_LOOK_S = 1.0


class Endpoints:
    """The endpoints of a workspace.

    Args:
        registry: The workspace's.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._fronts = LocalFronts(registry)
        self._clusters = Clusters(registry)

    def create(
        self,
        name: str,
        traffic: Traffic,
        *,
        settings: Mapping[str, str] | None = None,
        progress: Progress = ignore,
    ) -> EndpointView:
        """Puts a stable URL in front of deployments.

        Args:
            name: The endpoint's name.
            traffic: Where requests go.
            settings: Of what answers; see `serve.endpoints.front.config.FrontSettings`.
            progress: Called with a sentence at each step.

        Raises:
            AlreadyExistsError: There is one of that name.
            NotFoundError: One of the deployments is not there.
            UsageError: The deployments cannot stand behind one endpoint, or a setting is unknown.
            TargetError: It cannot answer; nothing is left of it.
        """
        target = self.plan(name, traffic, settings=settings)["target"]
        record = self._registry.endpoints.create(
            name,
            target=target,
            traffic=msgspec.to_builtins(traffic),
            backends=traffic.deployments,
            settings=settings,
        )
        try:
            self._bring_up(record, progress)
        except BaseException:
            self._forget(record)
            raise
        return self.get(name)

    def plan(
        self, name: str, traffic: Traffic, *, settings: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """What `create` would do, after the same checks."""
        check_name(name, "endpoint")
        target = self._check_traffic(traffic)
        if target == FRONT:
            self._fronts.check(dict(settings or {}))
        else:
            self._clusters.check(name, traffic, settings or {})
        return {"name": name, "target": target, "traffic": msgspec.to_builtins(traffic)}

    def set_traffic(self, name: str, traffic: Traffic, *, force: bool = False) -> EndpointView:
        """Spreads requests otherwise, from now on; none is dropped.

        Args:
            name: The endpoint.
            traffic: Where requests go.
            force: Also where a promotion is under way, which is cancelled.

        Raises:
            InUseError: A promotion is under way, or it was changed at the same moment.
            NotFoundError: There is no such endpoint or deployment.
        """
        record, state = self._prepare_traffic(name, traffic, force=force)
        return self._change(record, traffic, state)

    def plan_traffic(self, name: str, traffic: Traffic, *, force: bool = False) -> dict[str, Any]:
        """What `set_traffic` would do, after the same checks."""
        record, _ = self._prepare_traffic(name, traffic, force=force)
        before, after = record.traffic, msgspec.to_builtins(traffic)
        return {"name": name, "target": record.target, "before": before, "traffic": after}

    def _prepare_traffic(
        self, name: str, traffic: Traffic, *, force: bool
    ) -> tuple[Endpoint, promotions.Promotion | None]:
        record = self._registry.endpoints.get(name)
        self._check_change(record, traffic)
        state = records.promotion_of(record)
        if state is not None and state.phase == "running":
            if not force:
                raise InUseError(
                    f"{state.plan.to!r} is being promoted on {name!r} now.",
                    hint=f"'fieldpost endpoint promote {name} --halt' ends that, --force as well.",
                )
            state = promotions.cancel(state, "the traffic was set by hand", time.time())
        return record, state

    def promote(self, name: str, plan: Plan) -> EndpointView:
        """Begins to promote a deployment step by step; who leads it: see `lead`.

        Raises:
            UsageError: The plan does not fit.
            InUseError: Another promotion is under way.
            NotFoundError: There is no such endpoint or deployment.
        """
        record = self._registry.endpoints.get(name)
        state = self.plan_promotion(name, plan)
        return self._change(record, promotions.traffic(state), state)

    def plan_promotion(self, name: str, plan: Plan) -> promotions.Promotion:
        """The first state of a promotion, after the same checks."""
        record = self._registry.endpoints.get(name)
        present = records.promotion_of(record)
        if present is not None and present.phase == "running":
            raise InUseError(
                f"{present.plan.to!r} is being promoted on {name!r} now.",
                hint=f"Wait for it, or end it: 'fieldpost endpoint promote {name} --halt'.",
            )
        state = promotions.begin(plan, records.traffic_of(record), time.time())
        self._check_change(record, promotions.traffic(state))
        return state

    def lead(self, name: str, *, wait: Callable[[float], None] = time.sleep) -> EndpointView:
        """Leads a promotion on a cluster until it ends: nothing of ours runs there that could.

        Where the caller is killed the traffic stays at the step that it was at, and the next one
        who calls goes on from there. On this machine the endpoint's own process leads; this only
        waits for it.

        Args:
            name: The endpoint.
            wait: Waits between two looks, for so many seconds.

        Raises:
            NotFoundError: There is no such endpoint.
            TargetError: The cluster does not tell how the deployments do.
        """
        window, step_of = Window(), None
        while True:
            record = self._registry.endpoints.get(name)
            state = records.promotion_of(record)
            if state is None or state.phase != "running":
                return self.get(name)
            if record.target != FRONT:
                if step_of != (state.since, state.step):
                    self._bring_up(record, ignore)
                    window.reset(self._reports(record, state))
                    step_of = (state.since, state.step)
                self._decide(record, state, window)
            wait(_LOOK_S)

    def _reports(self, record: Endpoint, state: promotions.Promotion) -> builtins.list[Report]:
        names = sorted({*state.before.weights, state.plan.to})
        return self._clusters.reports(record, names)

    def _decide(self, record: Endpoint, state: promotions.Promotion, window: Window) -> None:
        now = time.monotonic()
        window.add(self._reports(record, state), now)
        others = [name for name in state.before.weights if name != state.plan.to]
        seen = window.seen([state.plan.to], now), window.seen(others, now)
        decided = promotions.decide(state, *seen, time.time())
        if decided != state:
            # Whoever was faster (who halts it, or leads it, too) is followed from the next look.
            with contextlib.suppress(InUseError):
                changed = records.change(
                    self._registry, record, promotions.traffic(decided), decided
                )
                self._bring_up(changed, ignore)

    def halt(self, name: str) -> EndpointView:
        """Ends a promotion by hand: requests go where they went before.

        Raises:
            NotFoundError: There is no such endpoint.
            UsageError: Nothing is being promoted.
        """
        record = self._registry.endpoints.get(name)
        state = records.promotion_of(record)
        if state is None or state.phase != "running":
            raise UsageError(
                f"Nothing is being promoted on {name!r}.",
                hint=f"'fieldpost endpoint show {name}' says what became of it.",
            )
        ended = promotions.cancel(state, "it was halted by hand", time.time())
        return self._change(record, promotions.traffic(ended), ended)

    def start(self, name: str, *, progress: Progress = ignore) -> EndpointView:
        """Brings an endpoint back, on its own address; nothing to do where it answers.

        Raises:
            NotFoundError: There is no such endpoint.
            TargetError: It cannot answer.
        """
        record = self._registry.endpoints.start(name)
        gone = ("down", "stopped", "failed")
        if record.target != FRONT or self._fronts.status(record).state in gone:
            self._bring_up(record, progress)
        return self.get(name)

    def delete(self, name: str) -> None:
        """Answers what has begun, and ends the endpoint; its deployments stay.

        Raises:
            NotFoundError: There is no such endpoint.
        """
        self._forget(self._registry.endpoints.get(name))

    def get(self, name: str) -> EndpointView:
        """An endpoint as it really is; raises `NotFoundError` where there is none."""
        return self._view(self._registry.endpoints.get(name))

    @contextlib.contextmanager
    def reach(self, name: str) -> Iterator[Route]:
        """The way to an endpoint from here, for the time of the block.

        Raises:
            NotFoundError: There is no such endpoint.
            TargetError: There is no way to it.
        """
        record = self._registry.endpoints.get(name)
        if record.target == FRONT:
            yield Route(record.address, record.address)
            return
        with self._clusters.reach(record) as route:
            yield route

    def list(self) -> builtins.list[EndpointView]:
        """All endpoints as they really are, by name."""
        return [self._view(record) for record in self._registry.endpoints.list()]

    def _change(
        self, record: Endpoint, traffic: Traffic, state: promotions.Promotion | None
    ) -> EndpointView:
        changed = records.change(self._registry, record, traffic, state)
        if record.target == FRONT:
            self._fronts.sync(changed)
        else:
            self._bring_up(changed, ignore)
        return self.get(record.name)

    def _bring_up(self, record: Endpoint, progress: Progress) -> None:
        if record.target == FRONT:
            self._fronts.start(record, progress)
        else:
            url = self._clusters.apply(record)
            self._registry.endpoints.set_address(record.name, url)

    def _forget(self, record: Endpoint) -> None:
        # The wish first: a command killed in between leaves an endpoint that is to stop.
        self._registry.endpoints.stop(record.name)
        if record.target == FRONT:
            self._fronts.stop(record)
        else:
            self._clusters.remove(record)
        self._registry.endpoints.delete(record.name)
        self._fronts.remove(record)

    def _check_change(self, record: Endpoint, traffic: Traffic) -> None:
        target = self._check_traffic(traffic)
        if target != record.target:
            raise UsageError(
                f"The endpoint {record.name!r} is one of the kind {record.target!r}: these "
                "deployments are elsewhere.",
                hint="Create another endpoint for them.",
            )
        if target == KUBERNETES:
            self._clusters.check(record.name, traffic, record.settings)

    def _check_traffic(self, traffic: Traffic) -> str:
        """The kind of endpoint that stands before these deployments."""
        check(traffic)
        kinds = set()
        for name in traffic.deployments:
            deployment = self._registry.deployments.get(name)
            _check_deployment(deployment)
            kinds.add(KUBERNETES if deployment.target == KUBERNETES else FRONT)
        if len(kinds) > 1:
            raise UsageError(
                "Deployments on a cluster and others cannot stand behind one endpoint.",
                hint="Deploy all of them on the same target.",
            )
        return kinds.pop()

    def _view(self, record: Endpoint) -> EndpointView:
        traffic = records.traffic_of(record)
        following: int | None = None
        if record.target == FRONT:
            status, report = self._fronts.status(record), self._fronts.report(record)
            backends = _backends(traffic, report)
            following = report.generation if report is not None and report.worker else None
        else:
            status, backends = self._clusters.status(record)
            backends = backends or _backends(traffic, None)
        state, note = _judged(status, backends)
        return EndpointView(
            name=record.name,
            target=record.target,
            state=state,
            url=status.url or record.address,
            note=note,
            generation=record.generation,
            following=following,
            backends=backends,
            rules=traffic.rules,
            sticky=traffic.sticky,
            settings=dict(record.settings),
            promotion=records.promotion_of(record),
            changed_at=record.changed_at,
            changed_by=record.changed_by,
        )


def _check_deployment(deployment: Deployment) -> None:
    if deployment.active is None:
        raise NotFoundError(
            f"The deployment {deployment.name!r} has never answered.",
            hint=f"Deploy it first: 'fieldpost deploy {deployment.name} --package REF'.",
        )
    if any(deployment.settings.get(key) for key in ("tls_client_ca", "server.tls_client_ca")):
        raise UsageError(
            f"The deployment {deployment.name!r} asks its clients for certificates, "
            "which an endpoint has none of.",
            hint="Let it listen on loopback without tls_client_ca, and give the endpoint TLS.",
        )


def _backends(traffic: Traffic, report: Report | None) -> tuple[BackendView, ...]:
    shadows = {shadow.deployment: shadow.percent for shadow in traffic.shadows}
    named = [*traffic.weights, *(n for n in traffic.deployments if n not in traffic.weights)]
    return tuple(_backend(name, traffic, shadows.get(name), report) for name in named)


def _backend(
    name: str, traffic: Traffic, shadow_percent: float | None, report: Report | None
) -> BackendView:
    view = BackendView(
        deployment=name,
        weight=traffic.weights.get(name),
        percent=round(traffic.share(name) * 100, _SHARES),
        shadow_percent=shadow_percent,
    )
    if report is None or not report.worker:
        return view
    view = msgspec.structs.replace(view, up=report.up.get(name))
    if shadow_percent is not None and name in report.shadows:
        found = report.shadows[name]
        return with_counts(view, found.counts, dropped=found.dropped)
    return with_counts(view, report.backends[name]) if name in report.backends else view


def _judged(status: Status, backends: tuple[BackendView, ...]) -> tuple[str, str]:
    """The state, and why: a front that runs before deployments that are down is degraded."""
    if status.state != "running":
        return status.state, status.note
    answering = [each for each in backends if each.weight]
    down = [each.deployment for each in answering if each.up is False]
    if not down:
        return "running", ""
    state = "degraded" if len(down) < len(answering) else "failed"
    plural = "s" if len(down) > 1 else ""
    return state, f"The deployment{plural} {', '.join(down)} cannot be reached."
