"""The groups `fieldpost fleet`, `device` and `rollout`: tables of what is imported later."""

from __future__ import annotations

from typing import Any, Final

import click

from scoring.commands.lazy import Entry, LazyGroup

_FLEET: Final = {
    "controller": Entry("edge.cli.controller:controller", "Lead a fleet: the process to keep on."),
    "demo": Entry(
        "edge.cli.demo:demo",
        "Watch a rollout halt by itself: a broker, a controller, five devices, in a minute.",
    ),
    "deploy": Entry("edge.cli.fleet:deploy", "Roll a package out to the devices that match."),
    "list": Entry("edge.cli.fleet:list_deployments", "List what the fleet is to run."),
    "show": Entry("edge.cli.fleet:show", "Show a deployment: for which devices, and what."),
    "remove": Entry("edge.cli.fleet:remove", "Take a deployment from all devices at once."),
    "events": Entry("edge.cli.fleet:events", "Tell what happened, the newest last."),
    "telemetry": Entry(
        "edge.cli.telemetry:telemetry",
        "Ask what devices have told: requests, inputs, resources, alarms.",
    ),
    "trust": Entry("edge.cli.trust:trust", "Say who signs for a fleet, and what may run there."),
    "broker-config": Entry(
        "edge.cli.broker:broker_config",
        "Write Mosquitto's configuration, access list and certificates.",
    ),
    "revoked-list": Entry(
        "edge.cli.broker:revoked_list",
        "Write the list of revoked certificates for a broker, then HUP it.",
    ),
}
_DEVICE: Final = {
    "list": Entry("edge.cli.device:list_devices", "List devices, all or those that match."),
    "show": Entry("edge.cli.device:show", "Show a device: its facts, and what it runs."),
    "add": Entry("edge.cli.device:add", "Make a device known, without a certificate."),
    "tag": Entry("edge.cli.device:tag", "Set or remove tags of a device."),
    "remove": Entry("edge.cli.device:remove", "Forget a device; nothing more is taken from it."),
    "restart": Entry("edge.cli.device:restart", "Restart what a device runs."),
    "logs": Entry("edge.cli.device:logs", "Fetch the end of a device's logs."),
    "shell": Entry(
        "edge.cli.device:shell",
        "Run a program on a device whose agent.toml says 'shell = true': shell NAME -- ls -l.",
    ),
    "simulate": Entry(
        "edge.cli.simulate:simulate",
        "Simulate devices at a broker, until Ctrl-C: the agent's own state machine.",
    ),
    "report": Entry("edge.cli.device:report", "Let a device report anew, and show that."),
    "claim": Entry(
        "edge.cli.enrolment:claim",
        "Make a token with which one device joins, once. It is printed now, and kept nowhere.",
    ),
    "claims": Entry(
        "edge.cli.enrolment:claims",
        "List the tokens that may still be used; their secrets are nowhere.",
    ),
    "cancel": Entry("edge.cli.enrolment:cancel", "Take a token back, by its id."),
    "certificates": Entry(
        "edge.cli.enrolment:certificates", "List the certificates of a device, or of all."
    ),
    "revoke": Entry(
        "edge.cli.enrolment:revoke",
        "Revoke all certificates of a device; then give the broker a new list.",
    ),
}
_ROLLOUT: Final = {
    "list": Entry("edge.cli.rollout:list_rollouts", "List rollouts, the newest first."),
    "show": Entry("edge.cli.rollout:show", "Show a rollout, device by device; or watch it."),
    "pause": Entry("edge.cli.rollout:pause", "Tell no further device."),
    "resume": Entry("edge.cli.rollout:resume", "Go on, over what failed until now."),
    "abort": Entry("edge.cli.rollout:abort", "End a rollout; who does not run it well goes back."),
    "retry": Entry("edge.cli.rollout:retry", "Tell devices that failed once more."),
}


class _FleetGroup(LazyGroup):
    """A group that says which extra to install where a command lacks a package of it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            from edge.cli.needs import not_installed

            raise not_installed(error, extra="fleet") from error


fleet = _FleetGroup("fleet", entries=_FLEET, help="Fleets: what devices everywhere are to run.")
device = _FleetGroup("device", entries=_DEVICE, help="Devices of a fleet.")
rollout = _FleetGroup("rollout", entries=_ROLLOUT, help="Rollouts: a revision on its way.")
