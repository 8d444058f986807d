"""Reading what a scrape gives, with the libraries that others read it with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from serve.server.telemetry import metrics

if TYPE_CHECKING:
    from prometheus_client import Metric

    from serve.server.telemetry.telemetry import Telemetry

Key = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The samples of one scrape.

    Args:
        text: Of the page.
        kind: Its content type.
    """

    def __init__(self, text: str, kind: str = metrics.TEXT) -> None:
        parse = text_string_to_metric_families
        if kind == metrics.OPENMETRICS:
            parse = openmetrics.text_string_to_metric_families
        self.families: dict[str, Metric] = {family.name: family for family in parse(text)}
        self.samples: dict[Key, float] = {}
        for family in self.families.values():
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels."""
        wanted = labels.items()
        return sum(
            value
            for (known, its), value in self.samples.items()
            if known == name and wanted <= dict(its).items()
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of all samples of a name."""
        return [dict(its) for known, its in self.samples if known == name]


def scrape(telemetry: Telemetry, kind: str = metrics.TEXT) -> Scrape:
    """What a scrape of this worker gives."""
    telemetry.tick()
    return Scrape(telemetry.page(kind).decode(), kind)
