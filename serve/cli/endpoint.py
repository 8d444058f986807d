"""The commands `fieldpost endpoint …`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from scoring.commands.output import changes, common, fields, note, pairs, table
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from serve.endpoints.service import Endpoints
    from serve.endpoints.traffic import Traffic
    from serve.endpoints.views import BackendView, EndpointView

_WATCH_S = 1.0
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "": 1}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)\Z")


class _Duration(click.ParamType[float]):
    """`90`, `90s`, `5m` or `2h`, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.match(str(value))
        if match is None:
            self.fail(f"'{value}' is no duration such as 90s, 5m or 2h.", param, ctx)
        return float(match[1]) * _UNITS_S[match[2]]


class _Steps(click.ParamType[tuple[float, ...]]):
    """`5,25,50,100`."""

    name = "steps"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            steps = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            steps = ()
        if not steps or any(not 0 < step <= 100 for step in steps):  # noqa: PLR2004 - per cent
            self.fail(f"'{value}' is no list of per cent such as 5,25,50,100.", param, ctx)
        return steps


def _traffic_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--sticky", default="", metavar="HEADER", help="Requests with the same value "
                     "of this header go to the same deployment."),
        click.option("--shadow", "shadows", multiple=True, metavar="NAME[=PERCENT]",
                     help="A deployment that gets copies, whose answers are dropped."),
        click.option("--header", "headers", multiple=True, metavar="HEADER=VALUE:NAME",
                     help="Requests with this header go to NAME; the value * fits any."),
        click.option("--to", required=True, multiple=True, metavar="NAME[=WEIGHT]",
                     help="A deployment and its weight; may be repeated."),
    ):  # fmt: skip
        function = option(function)
    return function


def _traffic(
    to: tuple[str, ...], headers: tuple[str, ...], shadows: tuple[str, ...], sticky: str
) -> Traffic:
    from serve.endpoints.traffic import parse

    return parse(to, headers, shadows, sticky)


@click.command(help="Put a stable URL in front of deployments.")
@click.argument("name")
@_traffic_options
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated."
)
@changes
@common
def create(
    name: str,
    to: tuple[str, ...],
    headers: tuple[str, ...],
    shadows: tuple[str, ...],
    sticky: str,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Creates the endpoint NAME and waits until it answers."""
    from serve.workspace import Workspace

    traffic = _traffic(to, headers, shadows, sticky)
    chosen = pairs(settings, "--set")
    with Workspace(workspace) as opened:
        if dry_run:
            plan = opened.endpoints.plan(name, traffic, settings=chosen)
            print_out(plan, fields(plan.items()), as_json=as_json)
            return
        progress = (lambda _text: None) if as_json else note
        view = opened.endpoints.create(name, traffic, settings=chosen, progress=progress)
    print_out(view, f"{view.name} is {view.state} at {view.url}", as_json=as_json)


@click.command(help="Spread an endpoint's requests otherwise.")
@click.argument("name")
@_traffic_options
@click.option("--force", is_flag=True, help="Also end a promotion that is under way.")
@changes
@common
def traffic(
    name: str,
    to: tuple[str, ...],
    headers: tuple[str, ...],
    shadows: tuple[str, ...],
    sticky: str,
    force: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Replaces all of the traffic of NAME at once; no request is dropped."""
    from serve.workspace import Workspace

    wanted = _traffic(to, headers, shadows, sticky)
    with Workspace(workspace) as opened:
        if dry_run:
            plan = opened.endpoints.plan_traffic(name, wanted, force=force)
            print_out(plan, fields(plan.items()), as_json=as_json)
            return
        view = opened.endpoints.set_traffic(name, wanted, force=force)
    print_out(view, _describe(view), as_json=as_json)


@click.command(help="Promote a deployment step by step.")
@click.argument("name")
@click.option("--to", metavar="DEPLOYMENT", help="The deployment that is to get the requests.")
@click.option(
    "--steps", type=_Steps(), default="5,25,50,100", show_default=True, help="Per cent, rising."
)
@click.option(
    "--soak", type=_Duration(), default="5m", show_default=True, help="How long a step lasts."
)
@click.option(
    "--min-requests",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Of the deployment, in each step.",
)
@click.option(
    "--success-rate",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="The least part of its requests that has to succeed.",
)
@click.option("--p95-ms", type=click.FloatRange(min=0, min_open=True), help="Its highest p95.")
@click.option("--p99-ms", type=click.FloatRange(min=0, min_open=True), help="Its highest p99.")
@click.option(
    "--slower",
    type=click.FloatRange(min=0, min_open=True),
    help="How many times the p95 of the others its own may be.",
)
@click.option("--halt", is_flag=True, help="End the promotion under way, and return.")
@click.option("--watch", is_flag=True, help="Tell how it goes, until it ends.")
@changes
@common
def promote(
    name: str,
    to: str | None,
    halt: bool,
    watch: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
    **limits: Any,
) -> int:
    """Promotes a deployment behind NAME; a front goes on with it when this command ends."""
    from serve.endpoints.promotion import Plan
    from serve.workspace import Workspace

    if (halt and to) or not (halt or to or watch):
        raise click.UsageError(
            "Give --to DEPLOYMENT to begin, --halt to end a promotion, or --watch to follow one."
        )
    with Workspace(workspace) as opened:
        endpoints = opened.endpoints
        if halt:
            view = endpoints.get(name) if dry_run else endpoints.halt(name)
            print_out(view, _describe(view), as_json=as_json)
            return 0
        if to is None:
            view = _follow(endpoints, name, tell=not as_json)
            print_out(view, _describe(view), as_json=as_json)
            return _outcome(view)
        plan = msgspec.convert({"to": to, "soak_s": limits.pop("soak"), **limits}, Plan)
        if dry_run:
            state = endpoints.plan_promotion(name, plan)
            print_out(state, fields(msgspec.to_builtins(plan).items()), as_json=as_json)
            return 0
        view = endpoints.promote(name, plan)
        # On a cluster nothing of ours runs that could lead it: this command does.
        if watch or view.target != "front":
            view = _follow(endpoints, name, tell=not as_json)
    print_out(view, _describe(view), as_json=as_json)
    return _outcome(view)


def _outcome(view: EndpointView) -> int:
    """The exit status: a promotion that was ended is no success."""
    state = view.promotion
    return 1 if state is not None and state.phase in ("halted", "cancelled") else 0


def _follow(endpoints: Endpoints, name: str, *, tell: bool) -> EndpointView:
    """Leads or follows a promotion until it ends, and tells what it does."""
    told = 0

    def look(seconds: float) -> None:
        nonlocal told
        told += _tell(endpoints.get(name), told) if tell else 0
        time.sleep(seconds)

    view = endpoints.lead(name, wait=look)
    if tell:
        _tell(view, told)
    return view


def _tell(view: EndpointView, told: int) -> int:
    """Tells the events after those that were told; how many."""
    events = view.promotion.events[told:] if view.promotion is not None else ()
    for event in events:
        note(f"{time.strftime('%H:%M:%S', time.localtime(event.at))}  {event.text}")
    return len(events)


@click.command("list", help="List endpoints as they are.")
@common
def list_endpoints(as_json: bool, workspace: str | None) -> None:
    """Lists endpoints, asking each front what really runs."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        views = opened.endpoints.list()
    rows = [
        (view.name, view.target, view.state, _shares(view), view.url, view.note) for view in views
    ]
    headings = ("NAME", "TARGET", "STATE", "TRAFFIC", "URL", "NOTE")
    text = (
        table(headings, rows)
        if rows
        else "No endpoints: 'fieldpost endpoint create NAME --to DEPLOYMENT'."
    )
    print_out(views, text, as_json=as_json)


@click.command(help="Show an endpoint: traffic, deployments, promotion.")
@click.argument("name")
@click.option("--watch", is_flag=True, help="Show it again and again, until interrupted.")
@common
def show(name: str, watch: bool, as_json: bool, workspace: str | None) -> None:
    """Shows NAME with what its deployments do."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        for view in _views(lambda: opened.endpoints.get(name), watch=watch):
            print_out(view, _describe(view), as_json=as_json)
            if watch and not as_json:
                print_out(None, " ", as_json=False)


def _views(look: Callable[[], EndpointView], *, watch: bool) -> Iterator[EndpointView]:
    """The endpoint now; with `watch` each time that something of it has changed."""
    last: EndpointView | None = None
    while True:
        view = look()
        if view != last:
            yield view
        if not watch:
            return
        last = view
        time.sleep(_WATCH_S)


@click.command(help="Start an endpoint again that is down.")
@click.argument("name")
@changes
@common
def start(name: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Starts NAME on its own address, with the traffic that it had."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        view = opened.endpoints.get(name) if dry_run else opened.endpoints.start(name)
    text = f"Would start {name}." if dry_run else f"{view.name} is {view.state} at {view.url}"
    print_out(view, text, as_json=as_json)


@click.command(help="Delete an endpoint; its deployments stay.")
@click.argument("name")
@changes
@common
def delete(name: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Lets NAME finish what it answers, ends it, and deletes its records."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        if dry_run:
            opened.endpoints.get(name)
        else:
            opened.endpoints.delete(name)
    verb = "Would delete" if dry_run else "Deleted"
    print_out({"name": name, "deleted": not dry_run}, f"{verb} {name}.", as_json=as_json)


def _shares(view: EndpointView) -> str:
    return ", ".join(
        f"{each.deployment} {each.percent:g} %" for each in view.backends if each.weight
    )


def _describe(view: EndpointView) -> str:
    from serve.endpoints.promotion import describe

    rules = "\n".join(f"{rule.header}={rule.value}: {rule.deployment}" for rule in view.rules)
    promotion = ""
    if view.promotion is not None:
        promotion = describe(view.promotion)
    behind = view.following is not None and view.following < view.generation
    head = fields(
        [
            ("endpoint", view.name),
            ("target", view.target),
            ("state", view.state),
            ("note", view.note),
            ("url", view.url),
            ("generation", f"{view.generation} (not followed yet)" if behind else view.generation),
            ("headers", rules),
            ("sticky", view.sticky),
            ("promotion", promotion),
            ("settings", ", ".join(f"{k}={v}" for k, v in sorted(view.settings.items()))),
        ]
    )
    headings = ("DEPLOYMENT", "SHARE", "UP", "REQUESTS", "FAILED", "P50", "P95", "P99", "IN FLIGHT")
    return f"{head}\n\n{table(headings, map(_row, view.backends))}"


def _row(each: BackendView) -> tuple[object, ...]:
    share = f"{each.percent:g} %" if each.weight is not None else "by header"
    if each.shadow_percent is not None:
        share = f"shadow {each.shadow_percent:g} %"
    up = {True: "yes", False: "no", None: "?"}[each.up]
    failed = f"{each.failed} (+{each.dropped} dropped)" if each.dropped else each.failed
    latencies = [
        f"{ms:.3g} ms" if ms is not None else "" for ms in (each.p50_ms, each.p95_ms, each.p99_ms)
    ]
    return (each.deployment, share, up, each.requests, failed, *latencies, each.in_flight)
