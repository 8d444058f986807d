"""How transfers are made: what everything that talks to registries is given."""

from __future__ import annotations

import msgspec

from serve.distribution.credentials import Logins
from serve.distribution.hosts import Hosts
from serve.distribution.limits import DEFAULT, Limits
from serve.distribution.memory import Memory


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a transfer is made.

    Attributes:
        hosts: How registries are reached.
        logins: The user's logins.
        limits: Times, sizes, numbers.
        memory: What is remembered between transfers.
    """

    hosts: Hosts = msgspec.field(default_factory=Hosts)
    logins: Logins = msgspec.field(default_factory=Logins)
    limits: Limits = DEFAULT
    memory: Memory = msgspec.field(default_factory=lambda: Memory(None))
