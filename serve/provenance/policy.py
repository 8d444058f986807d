"""What a workspace requires of the packages that it deploys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.provenance.checks import Verdict
    from serve.provenance.keys import PublicKey
    from serve.registry import Registry

SETTING = "deploy.signatures"


class SignaturePolicy(msgspec.Struct, frozen=True):
    """Only packages that one of these keys signed are deployed.

    Attributes:
        keys: In PEM.
    """

    keys: tuple[str, ...]


def read_policy(registry: Registry) -> tuple[PublicKey, ...]:
    """The keys of which one must have signed what is deployed; none where nothing is required.

    Raises:
        WorkspaceError: The setting was written by a newer release.
        SigningKeyError: A key of it cannot be read.
    """
    policy = registry.settings.get(SETTING, SignaturePolicy)
    if policy is None:
        return ()
    from serve.provenance.keyfiles import parse_public  # noqa: PLC0415 - only where one is set

    name = "the workspace's policy"
    return tuple(key for pem in policy.keys for key in parse_public(pem.encode(), name))


def write_policy(registry: Registry, keys: Sequence[PublicKey]) -> None:
    """Requires from now on that one of the keys has signed what is deployed; none: nothing."""
    if keys:
        registry.settings.set(SETTING, SignaturePolicy(tuple(key.pem.decode() for key in keys)))
    else:
        registry.settings.remove(SETTING)


def admit(registry: Registry, digest: str, keys: Sequence[PublicKey] = ()) -> list[Verdict]:
    """Checks that a package may be deployed; layers are checked when they are unpacked.

    Args:
        registry: Where the package and the policy are.
        digest: The package's.
        keys: Those of this deployment: one of them must have signed, and one of the policy's, too.

    Raises:
        UnsignedError: There is no signature.
        VerificationError: A signature or a document does not match.
    """
    required = [each for each in (read_policy(registry), tuple(keys)) if each]
    if not required:
        return []
    from serve.provenance import local  # noqa: PLC0415 - only where something is required

    return [local.verify(registry, digest, each, whole=False) for each in required]
