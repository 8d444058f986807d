"""Which deployment a request goes to. Pure: the caller brings the chance and the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from serve.endpoints.traffic import ANY

if TYPE_CHECKING:
    from serve.endpoints.traffic import Traffic

Headers = Sequence[tuple[bytes, bytes]]

_DRAWS = 1 << 64


class Router:
    """The traffic, made ready for one decision per request.

    Args:
        traffic: Checked.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._rules = [
            (rule.header.encode(), rule.value.encode("latin-1"), rule.deployment)
            for rule in traffic.rules
        ]
        self._sticky = traffic.sticky.encode()
        self._weights = {name: weight for name, weight in traffic.weights.items() if weight}
        self._only = next(iter(self._weights)) if len(self._weights) == 1 else ""
        self.reads_headers = bool(self._rules or self._sticky)
        self.shadows = tuple((s.deployment, s.percent / 100) for s in traffic.shadows)

    def choose(
        self,
        headers: Headers,
        draw: Callable[[], float],
        *,
        without: Collection[str] = (),
        prefer: Callable[[str], bool] = lambda _name: True,
    ) -> str | None:
        """The deployment for a request.

        Args:
            headers: Names in lower case.
            draw: A number in [0, 1).
            without: Deployments that have been tried in vain.
            prefer: Whether one is believed to answer. Where none is, the weights decide alone.

        Returns:
            None where no other is left to try. A request that a rule sends to a deployment goes
            there or nowhere.
        """
        if self.reads_headers:
            ruled = self._by_rule(headers)
            if ruled is not None:
                return None if ruled in without else ruled
        elif self._only and not without:
            return self._only
        left = {name: weight for name, weight in self._weights.items() if name not in without}
        well = {name: weight for name, weight in left.items() if prefer(name)}
        weights = well or left
        if not weights:
            return None
        key = self._key(headers) if self._sticky else None
        return _draw(weights, draw()) if key is None else _hashed(weights, key)

    def _by_rule(self, headers: Headers) -> str | None:
        for header, value, deployment in self._rules:
            for name, text in headers:
                if name == header and (value == ANY.encode() or text == value):
                    return deployment
        return None

    def _key(self, headers: Headers) -> bytes | None:
        return next((text for name, text in headers if name == self._sticky), None)


def _draw(weights: dict[str, int], chance: float) -> str:
    point = chance * sum(weights.values())
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return name


def _hashed(weights: dict[str, int], key: bytes) -> str:
    """Weighted rendezvous: where weights change, only as many keys move as have to.

    Each deployment draws a number from its name and the key; the largest weight / -ln(number)
    wins, so that the keys are spread as the weights say.
    """

    def score(name: str) -> float:
        digest = blake2b(key, digest_size=8, key=name.encode()[:64]).digest()
        number = (int.from_bytes(digest, "big") + 0.5) / _DRAWS
        return weights[name] / -math.log(min(number, 1 - 1e-16))

    return max(sorted(weights), key=score)
