"""An endpoint between its record and what runs: decoded, resolved, written back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from serve.endpoints.front.config import Address, FrontConfig
from serve.endpoints.promotion import Promotion
from serve.endpoints.traffic import Traffic, from_builtins

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve.registry import Registry
    from serve.registry.records import Deployment, Endpoint


def traffic_of(record: Endpoint) -> Traffic:
    """How its requests are spread; raises `UsageError` where a newer release wrote it."""
    return from_builtins(record.traffic)


def promotion_of(record: Endpoint) -> Promotion | None:
    """The promotion under way, or the last one; None for none."""
    return msgspec.convert(record.promotion, Promotion) if record.promotion else None


def config_of(registry: Registry, record: Endpoint) -> FrontConfig:
    """What a front is told: the traffic, and where its deployments answer now."""
    traffic = traffic_of(record)
    found = {each.name: each for each in registry.deployments.list()}
    return FrontConfig(
        name=record.name,
        generation=record.generation,
        traffic=traffic,
        addresses={name: _address(found.get(name)) for name in traffic.deployments},
    )


def certificate_of(deployment: Deployment) -> str:
    """The file of its certificate; empty for none."""
    given = (deployment.settings.get(key) for key in ("tls_cert", "server.tls_cert"))
    return next((path for path in given if path), "")


def deployments_of(traffic: Traffic, promotion: Promotion | None) -> tuple[str, ...]:
    """All deployments that must not go away: a halt returns to those of before."""
    before: Iterable[str] = ()
    if promotion is not None and promotion.phase == "running":
        before = promotion.before.deployments
    return tuple(sorted({*traffic.deployments, *before}))


def change(
    registry: Registry, record: Endpoint, traffic: Traffic, promotion: Promotion | None
) -> Endpoint:
    """Writes traffic and promotion in one transaction, on top of the record that was read.

    Raises:
        InUseError: It was changed meanwhile.
        NotFoundError: The endpoint, or one of the deployments, is no longer there.
    """
    return registry.endpoints.change(
        record.name,
        traffic=msgspec.to_builtins(traffic),
        backends=deployments_of(traffic, promotion),
        promotion=msgspec.to_builtins(promotion) if promotion is not None else {},
        expected=record.generation,
    )


def _address(deployment: Deployment | None) -> Address:
    if deployment is None or deployment.desired != "running":
        return Address("")
    return Address(deployment.address, certificate_of(deployment))


class EndpointRecords:
    """What the supervisor of a front writes; see `serve.targets.local.records.Records`.

    Args:
        location: What `Registry` takes.
        name: The endpoint.
    """

    def __init__(self, location: str, name: str) -> None:
        self._location = location
        self._name = name

    def warm_up(self) -> None:
        """The conductor has the registry open already."""

    def activate(self, revision: int, url: str) -> None:  # noqa: ARG002 - it has no revisions
        """Records where the endpoint answers.

        Raises:
            ServeError: The registry refuses, or cannot be written.
        """
        from serve.registry import Registry  # noqa: PLC0415

        with Registry(self._location) as registry:
            registry.endpoints.set_address(self._name, url)

    def start(self) -> None:
        """Records that the endpoint is to answer.

        Raises:
            ServeError: The registry refuses, or cannot be written.
        """
        from serve.registry import Registry  # noqa: PLC0415

        with Registry(self._location) as registry:
            registry.endpoints.start(self._name)

    def fail(self, revision: int, reason: str, detail: str) -> None:
        """Whoever asked for it is told; the record stays as it was."""
