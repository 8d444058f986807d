"""The settings of the target `edge`, and what they mean for a fleet. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from edge.controller import conditions, texts, waves
from edge.controller.entities import Plan
from edge.protocol.messages import Soak, Window
from edge.protocol.names import check_name
from scoring.deploying.settings import ENV_PREFIX, SERVER_PREFIX, parse_settings
from scoring.errors import UsageError

_SERVER_VARIABLE: Final = "FIELDPOST_SERVER_"

Part = Annotated[float, msgspec.Meta(ge=0, le=1)]


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set` takes.

    Attributes:
        where: Which devices: `tags.area == 'yard'`, or `*`.
        module: What it is called on the devices.
        priority: Of several deployments for a device, the highest wins, then the newest.
        layer: Add the module to those of another deployment.
        window: When devices may switch, in their own time: `22:00-04:00/sat,sun`.
        rate: Bytes a second for fetching: `500k`; 0 for all.
        port: Where it answers on the devices; 0: the port that it has had, or a free one.
        run: As what it runs there.
        soak: For how long a device watches it before it is good.
        most_errors: Part of requests that may fail, of a device that soaks and of a wave.
        most_latency: Of the slowest hundredth of them; 0 for any.
        phase_timeout: For each phase on the device.
        waves: How many devices have it after each wave.
        first: A condition: which devices come first.
        failures: How many of a wave may fail: a count, or a percentage.
        timeout: A device without progress for so long counts as failed.
        between: From wave to wave.
        observe: For how long each wave is judged by what its devices tell.
        offline: What devices that are not there count as.
        wait: Whether `deploy` waits for the end of the rollout.
        env: Environment variables of the workers.
        server: Settings of the server.
    """

    where: str = ""
    module: str = "main"
    priority: int = 0
    layer: bool = False
    window: str = ""
    rate: str = "0"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    run: Literal["auto", "process", "container", "circuit"] = "auto"
    soak: str = "10s"
    most_errors: Part = 1.0
    most_latency: str = "0"
    phase_timeout: str = "10m"
    waves: str = "1,10%,50%,100%"
    first: str = ""
    failures: str = "0"
    timeout: str = "30m"
    between: str = "0"
    observe: str = "0"
    offline: Literal["fail", "wait"] = "fail"
    wait: bool = False
    env: dict[str, str] = {}
    server: dict[str, str] = {}


class Offer(NamedTuple):
    """What a fleet is to run, and how it gets there.

    Attributes:
        condition: Which devices.
        module: Its name there.
        port: Where it answers.
        run: As what it runs.
        soak: What it has to show.
        timeout_s: For each phase.
        settings: As devices are told.
        more: Further arguments of `Fleet.deploy`.
        wait: Whether to wait for the end of the rollout.
    """

    condition: str
    module: str
    port: int
    run: Literal["auto", "process", "container", "circuit"]
    soak: Soak
    timeout_s: float
    settings: dict[str, str]
    more: dict[str, Any]
    wait: bool


def parse(settings: Mapping[str, Any]) -> Offer:
    """What settings mean.

    Raises:
        UsageError: A key or a value is none, or there is no condition.
    """
    given = parse_settings(EdgeSettings, settings)
    if not given.where:
        raise UsageError(
            "Say which devices: the target 'edge' wants a condition.",
            hint="--set \"where=tags.area == 'yard'\", or --set 'where=*' for all.",
            where="where",
        )
    conditions.parse(given.where)
    plan, window = _plan(given), texts.window(given.window, "window")
    soak = _soak(given)
    waves.check(plan, longest_soak_s=soak.seconds)
    return Offer(
        condition=given.where,
        module=check_name(given.module, "module"),
        port=given.port,
        run=given.run,
        soak=soak,
        timeout_s=_seconds(given.phase_timeout, "phase_timeout", least=1.0),
        settings=_told(given),
        more=_more(given, plan, window),
        wait=given.wait,
    )


def _more(given: EdgeSettings, plan: Plan, window: Window | None) -> dict[str, Any]:
    return {
        "priority": given.priority,
        "layer": given.layer,
        "window": window,
        "rate": texts.rate(given.rate, "rate"),
        "plan": plan,
    }


def _plan(given: EdgeSettings) -> Plan:
    return Plan(
        waves=tuple(part.strip() for part in given.waves.split(",") if part.strip()),
        first=given.first,
        most_failures=given.failures,
        timeout_s=_seconds(given.timeout, "timeout"),
        between_s=_seconds(given.between, "between"),
        offline=given.offline,
        observe_s=_seconds(given.observe, "observe"),
        most_errors=given.most_errors,
        most_latency_s=_seconds(given.most_latency, "most_latency"),
    )


def _soak(given: EdgeSettings) -> Soak:
    return Soak(
        seconds=_seconds(given.soak, "soak", most=7 * 86_400.0),
        most_errors=given.most_errors,
        most_latency_s=_seconds(given.most_latency, "most_latency"),
    )


def _seconds(text: str, where: str, *, least: float = 0.0, most: float = 86_400.0 * 366) -> float:
    found = texts.duration(text, where)
    if not least <= found <= most:
        raise UsageError(f"{text} is not between {least:g} s and {most:g} s.", where=where)
    return found


def _told(given: EdgeSettings) -> dict[str, str]:
    """As devices take them: `env.NAME`, and the server's settings as the variables they are."""
    server = {f"{SERVER_PREFIX}{name}": text for name, text in given.server.items()}
    return {f"{ENV_PREFIX}{name}": text for name, text in given.env.items()} | server
