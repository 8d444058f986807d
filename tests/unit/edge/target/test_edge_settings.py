"""What `--set` means for a fleet."""

from __future__ import annotations

import pytest

from edge.protocol.messages import Soak, Window
from edge.target.settings import EdgeSettings, parse
from scoring.errors import UsageError


def test_settings_become_what_a_fleet_is_told() -> None:
    offer = parse(
        {
            "where": "tag.site=='north'", "module": "iris", "priority": "5", "layer": "true",
            "window": "22:00-04:00/sat", "rate": "500k", "port": "8100", "run": "process",
            "soak": "1m", "most_errors": "0.01", "most_latency": "250ms", "phase_timeout": "5m",
            "waves": "1, 100%", "first": "tags.canary == 'yes'", "failures": "10%",
            "timeout": "1h", "between": "10m", "observe": "5m", "offline": "wait", "wait": "true",
            "env.TOKEN": "t", "server.inputs": "on",
        }
    )  # fmt: skip
    assert (offer.condition, offer.module, offer.port) == ("tag.site=='north'", "iris", 8100)
    assert offer.soak == Soak(seconds=60.0, most_errors=0.01, most_latency_s=0.25)
    assert offer.settings == {"env.TOKEN": "t", "server.inputs": "on"}
    assert offer.more["window"] == Window(begins=1320, ends=240, days=(5,))
    assert (offer.more["rate"], offer.more["priority"], offer.more["layer"]) == (500_000, 5, True)
    plan = offer.more["plan"]
    assert (plan.waves, plan.first, plan.most_failures) == (
        ("1", "100%"), "tags.canary == 'yes'", "10%",
    )  # fmt: skip
    assert (plan.timeout_s, plan.between_s, plan.observe_s) == (3600.0, 600.0, 300.0)
    assert (plan.offline, plan.most_errors, plan.most_latency_s) == ("wait", 0.01, 0.25)
    assert offer.wait
    assert offer.timeout_s == 300.0
    assert parse({"where": "*", "run": "circuit"}).run == "circuit"


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({}, "where"),
        ({"where": "tags. =="}, "where"),
        ({"where": "*", "colour": "red"}, "colour"),
        ({"where": "*", "soak": "soon"}, "soak"),
        ({"where": "*", "soak": "30d"}, "soak"),
        ({"where": "*", "phase_timeout": "0"}, "phase_timeout"),
        ({"where": "*", "most_errors": "2"}, "most_errors"),
        ({"where": "*", "waves": "10%,5%"}, "waves"),
        ({"where": "*", "timeout": "5s"}, "timeout_s"),
        ({"where": "*", "window": "night"}, "window"),
        ({"where": "*", "run": "magic"}, "run"),
        ({"where": "*", "port": "70000"}, "port"),
    ],
)
def test_what_is_none_is_said_where(settings: dict[str, str], where: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(settings)
    assert where in (caught.value.where, "where")
    assert caught.value.message


def test_all_settings_are_described() -> None:
    from msgspec import structs

    documented = EdgeSettings.__doc__ or ""
    for field in structs.fields(EdgeSettings):
        assert f"        {field.name}:" in documented
