"""What monitoring is told of a controller and its fleet: `GET /metrics` in Prometheus' text format.

For this machine, or for whoever has the token: names of devices and sites are nobody else's.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, get_args

from edge.controller.entities import RolloutState
from edge.controller.webserver import Answer, Request
from edge.telemetry import prometheus
from edge.telemetry.families import Family, Point
from edge.workspace import Database
from scoring.errors import WorkspaceError

logger = logging.getLogger(__name__)

PATH: Final = "/metrics"
_PREFIX: Final = "fieldpost_fleet_"
_BEARER: Final = "Bearer "


class State(NamedTuple):
    """How a controller does.

    Attributes:
        leads: Whether it is the one of several that leads.
        is_up: Whether it is connected to the broker.
        terms: How often the leadership changed hands, ever.
        queues: Name of a queue to how much waits in it.
        left_out: Batches of telemetry for which there was no room; devices send them again.
    """

    leads: bool = False
    is_up: bool = False
    terms: int = 0
    queues: Mapping[str, int] = {}
    left_out: int = 0


class Census(NamedTuple):
    """How much of what there is, by its state.

    Attributes:
        devices: `online` and `offline`.
        deployments: All of them.
        rollouts: By state.
        commands: By state.
        resets: How often boot counters went back.
    """

    devices: dict[str, int]
    deployments: int
    rollouts: dict[str, int]
    commands: dict[str, int]
    resets: int


def census(database: Database) -> Census:
    """Counts the fleet; raises WorkspaceError."""
    with database.read() as connection:
        devices = connection.execute(
            "SELECT online AS state, count(*) AS n, sum(resets) AS resets "
            "FROM fleet_devices GROUP BY online"
        )
        (deployments,) = connection.execute("SELECT count(*) AS n FROM fleet_deployments")
        rollouts = connection.execute(
            "SELECT state, count(*) AS n FROM fleet_rollouts GROUP BY state"
        )
        commands = connection.execute(
            "SELECT state, count(*) AS n FROM fleet_commands GROUP BY state"
        )
    by_state = {"online" if row["state"] else "offline": int(row["n"]) for row in devices}
    return Census(
        {"online": 0, "offline": 0} | by_state,
        int(deployments["n"]),
        dict.fromkeys(get_args(RolloutState), 0) | _by_state(rollouts),
        _by_state(commands),
        sum(int(row["resets"] or 0) for row in devices),
    )


def _by_state(rows: Iterable[dict[str, object]]) -> dict[str, int]:
    return {str(row["state"]): int(str(row["n"])) for row in rows}


def families(found: Census, state: State) -> list[Family]:
    """All of it as metrics. Pure."""
    made = [
        _gauge("devices", "Devices of the fleet.", "state", found.devices),
        _one("deployments", "Deployments of the fleet.", found.deployments),
        _gauge("rollouts", "Rollouts, by their state.", "state", found.rollouts),
        _gauge("commands", "Commands to devices, by their state.", "state", found.commands),
        _counter("device_resets", "Boot counters that went back: new hardware, or clones.",
                 found.resets),
        _one("leader", "Whether this controller leads.", int(state.leads)),
        _one("broker_up", "Whether this controller is connected to the broker.", int(state.is_up)),
        _counter("terms", "How often another controller took over.", state.terms),
        _gauge("queue", "What waits in this controller.", "queue", state.queues),
        _counter("telemetry_left_out", "Batches without room; devices send them again.",
                 state.left_out),
    ]  # fmt: skip
    return [family for family in made if family.points]


def _gauge(name: str, text: str, label: str, values: Mapping[str, int]) -> Family:
    points = [Point({label: key}, float(value)) for key, value in sorted(values.items())]
    return Family(_PREFIX + name, "gauge", text, points)


def _one(name: str, text: str, value: int) -> Family:
    return Family(_PREFIX + name, "gauge", text, [Point({}, float(value))])


def _counter(name: str, text: str, value: int) -> Family:
    return Family(_PREFIX + name, "counter", text, [Point({}, float(value))])


class MetricsRoute:
    """Answers a scrape.

    Args:
        database: The fleet's records.
        state: How the controller does.
        telemetry: The page of what devices told; None for none.
        token: Who shows it may ask from anywhere; empty: only this machine may.
    """

    def __init__(
        self,
        database: Database,
        state: Callable[[], State],
        telemetry: Callable[[], bytes] | None = None,
        token: str = "",
    ) -> None:
        self._database, self._state = database, state
        self._telemetry, self._token = telemetry, token

    def __call__(self, request: Request) -> Answer | None:
        """A route of the web server."""
        if request.path != PATH:
            return None
        if request.method not in {"GET", "HEAD"}:
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET, HEAD"),))
        if not self._may(request):
            return Answer(HTTPStatus.UNAUTHORIZED, headers=(("www-authenticate", "Bearer"),))
        page = b"".join(self._pages())
        return Answer(HTTPStatus.OK, page, (("content-type", prometheus.CONTENT_TYPE),))

    def _may(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        if self._token and given.startswith(_BEARER):
            shown = given.removeprefix(_BEARER).strip().encode("latin-1", "replace")
            return hmac.compare_digest(shown, self._token.encode())
        return request.is_local and "x-forwarded-for" not in request.headers

    def _pages(self) -> Iterable[bytes]:
        state = self._state()
        try:
            yield prometheus.render(families(census(self._database), state))
        except WorkspaceError as error:  # what is known without the records is told all the same
            logger.warning("metrics without records reason=%s", error)
            found = Census({}, 0, {}, {}, 0)
            kept = {f"{_PREFIX}{name}" for name in ("leader", "broker_up", "queue")}
            yield prometheus.render(one for one in families(found, state) if one.name in kept)
        if self._telemetry is not None:
            yield self._telemetry()
