"""How an endpoint spreads requests over deployments: plain data, checked once. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from scoring.errors import UsageError
from serve.registry.names import check_name

ANY = "*"
"""As the value of a header rule: whatever the header says."""

MAX_WEIGHT = 1_000_000

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\x20-\x7e]*\Z")
# What decides about the framing or the way of a message is not for rules.
_NOT_FOR_RULES = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect"}
)

Weight = Annotated[int, msgspec.Meta(ge=0, le=MAX_WEIGHT)]


class HeaderRule(msgspec.Struct, frozen=True):
    """Requests with this header go to one deployment, whatever the weights say.

    Attributes:
        header: Its name, in lower case.
        value: What it has to say; `*` for anything.
        deployment: Where those requests go, and nowhere else.
    """

    header: str
    value: str
    deployment: str


class Shadow(msgspec.Struct, frozen=True):
    """A deployment that gets copies of requests; its answers are dropped.

    Attributes:
        deployment: Its name.
        percent: Of all requests, above 0 and up to 100.
    """

    deployment: str
    percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 100.0


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go.

    Attributes:
        weights: Deployment to its share of all weights; 0 for one that stands by.
        rules: The first one that a request fits decides, before the weights.
        sticky: The header by whose value a request always goes to the same deployment, as long
            as the weights stay; empty for none.
        shadows: Deployments that get copies.
    """

    weights: dict[str, Weight]
    rules: tuple[HeaderRule, ...] = ()
    sticky: str = ""
    shadows: tuple[Shadow, ...] = ()

    @property
    def deployments(self) -> tuple[str, ...]:
        """All that are named, each once, in the order of their names."""
        named = {*self.weights, *(rule.deployment for rule in self.rules)}
        return tuple(sorted(named | {shadow.deployment for shadow in self.shadows}))

    def share(self, deployment: str) -> float:
        """The part of requests without a rule that goes to a deployment, 0 to 1."""
        return self.weights.get(deployment, 0) / sum(self.weights.values())


def check(traffic: Traffic) -> Traffic:
    """The traffic itself, where it makes sense.

    Raises:
        UsageError: No weight is above 0, a rule or shadow contradicts another, or a name is none.
    """
    for name in traffic.deployments:
        check_name(name, "deployment")
    if sum(traffic.weights.values()) <= 0:
        raise UsageError(
            "No deployment would get any request.",
            hint="Give at least one a weight above 0: --to NAME=100.",
            where="weights",
        )
    for rule in traffic.rules:
        _check_header(rule.header, rule.value)
    if traffic.sticky:
        _check_header(traffic.sticky, ANY)
    _check_alone([(rule.header, rule.value) for rule in traffic.rules], "rule")
    _check_alone([shadow.deployment for shadow in traffic.shadows], "shadow")
    _check_shadows(traffic)
    return traffic


def from_builtins(document: Mapping[str, Any]) -> Traffic:
    """The traffic that the registry holds.

    Raises:
        UsageError: A newer release wrote it.
    """
    try:
        return msgspec.convert(document, Traffic)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"The traffic of the endpoint cannot be read: {error}.",
            hint="Upgrade Fieldpost on this machine, or set it again.",
        ) from error


def parse(
    to: Iterable[str],
    headers: Iterable[str] = (),
    shadows: Iterable[str] = (),
    sticky: str = "",
) -> Traffic:
    """Reads what a command line gives.

    Args:
        to: `NAME=WEIGHT`; a single `NAME` gets everything.
        headers: `HEADER=VALUE:NAME`.
        shadows: `NAME` or `NAME=PERCENT`.
        sticky: A header's name.

    Raises:
        UsageError: One of them has another form, or they make no sense together.
    """
    given = [*to]
    weights: dict[str, int] = {}
    for text in given:
        name, weight = _weight(text, alone=len(given) == 1)
        if name in weights:
            raise UsageError(f"{name!r} is given twice.", where="--to")
        weights[name] = weight
    return check(
        Traffic(
            weights=weights,
            rules=tuple(map(_rule, headers)),
            sticky=sticky.lower(),
            shadows=tuple(map(_shadow, shadows)),
        )
    )


def _weight(text: str, *, alone: bool) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals and alone:
        return name, 100
    if not (number.isascii() and number.isdigit()) or int(number) > MAX_WEIGHT:
        raise UsageError(
            f"{text!r} is not of the form NAME=WEIGHT.",
            hint="Weights are whole numbers: --to blue=90 --to green=10.",
            where="--to",
        )
    return name, int(number)


def _rule(text: str) -> HeaderRule:
    header, equals, rest = text.partition("=")
    value, colon, deployment = rest.rpartition(":")
    if not equals or not colon or not deployment:
        raise UsageError(
            f"{text!r} is not of the form HEADER=VALUE:NAME.",
            hint="For example --header x-canary=always:green; the value * fits any.",
            where="--header",
        )
    return HeaderRule(header.strip().lower(), value.strip(), deployment)


def _shadow(text: str) -> Shadow:
    name, equals, number = text.partition("=")
    try:
        percent = float(number) if equals else 100.0
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:  # noqa: PLR2004 - per cent
        raise UsageError(
            f"{text!r} is not of the form NAME or NAME=PERCENT.",
            hint="Per cent are above 0 and at most 100: --shadow green=10.",
            where="--shadow",
        )
    return Shadow(name, percent)


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.match(name) or name in _NOT_FOR_RULES or name != name.lower():
        raise UsageError(
            f"Requests cannot be told apart by the header {name!r}.",
            hint="Choose one of your own, such as x-canary.",
            where=name,
        )
    if not value or not _VALUE.match(value) or value != value.strip():
        raise UsageError(
            f"A header cannot say {value!r} here.",
            hint="Write visible ASCII characters, or * for anything.",
            where=name,
        )


def _check_alone(keys: list[Any], what: str) -> None:
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise UsageError(f"There are two {what}s for {twice!r}.", hint="Keep one of them.")


def _check_shadows(traffic: Traffic) -> None:
    answering = {name for name, weight in traffic.weights.items() if weight}
    both = next((s.deployment for s in traffic.shadows if s.deployment in answering), "")
    if both:
        raise UsageError(
            f"{both!r} would get requests and their copies.",
            hint=f"Give it the weight 0, or leave --shadow {both} out.",
            where="--shadow",
        )
    for shadow in traffic.shadows:
        if not 0 < shadow.percent <= 100:  # noqa: PLR2004 - per cent
            raise UsageError(f"The shadow {shadow.deployment!r} has no percentage above 0.")
