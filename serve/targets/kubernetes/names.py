"""What the objects of a deployment are called.

Names of deployments are longer and freer than those of objects: a Service takes 63 letters, digits
and dashes and begins with a letter. What has to be changed gets a part of its hash, so that two
deployments never meet in one name.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 46
"""Of a base name: pods add 17 to it, and a host name has 63."""
_HASH = 8
_CONTENT_HASH = 10
_PLAIN = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)


class Names(NamedTuple):
    """Of one deployment.

    Attributes:
        base: Of the Deployment, the Service and all that there is once.
    """

    base: str

    @classmethod
    def of(cls, deployment: str) -> Names:
        """The names for a deployment's name."""
        return cls(base_name(deployment))

    def config(self, data: Mapping[str, str]) -> str:
        """The ConfigMap; another content is another object, so that old pods keep theirs."""
        return f"{self.base}-config-{content_hash(data)}"

    def environment(self, revision: int) -> str:
        """The Secret of `env.*`: its name tells nothing of what is in it."""
        return f"{self.base}-env-r{revision}"

    @property
    def secret(self) -> str:
        """The Secret of `env.*` that a user makes for exported objects."""
        return f"{self.base}-env"


def base_name(deployment: str) -> str:
    """The name itself where every kind of object takes it, else the nearest with a hash."""
    if len(deployment) <= MOST and _PLAIN.fullmatch(deployment):
        return deployment
    digest = hashlib.sha256(deployment.encode()).hexdigest()[:_HASH]
    plain = re.sub(r"[^a-z0-9]+", "-", deployment.lower()).strip("-")
    if not plain[:1].isalpha():
        plain = f"d-{plain}"
    return f"{plain[: MOST - _HASH - 1].rstrip('-')}-{digest}"


def content_hash(data: Mapping[str, str]) -> str:
    """Of lines `KEY=VALUE`, which a Helm template can write as well."""
    lines = "".join(f"{key}={data[key]}\n" for key in sorted(data))
    return hashlib.sha256(lines.encode()).hexdigest()[:_CONTENT_HASH]
