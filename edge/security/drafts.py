"""Changes to a fleet's metadata, signed where the offline keys are: what may run, and who signs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from edge.security import fields
from edge.security.keys import SigningKey
from edge.security.repository import RoleName, releases, sign
from scoring import digest as digests
from scoring.errors import SigningKeyError, VerificationError


def permit(
    targets: Targets, packages: Mapping[str, int], *, name: str, release: int = 0
) -> fields.Release:
    """Permits a release: one package, or the same for several platforms.

    A package that is permitted already is permitted as a newer release: so one goes back to an
    older version on purpose.

    Args:
        targets: A draft, which is changed.
        packages: Digest of a manifest to how many bytes that has.
        name: Of the line that it is a release of.
        release: Its counter; 0 for the next of the line.

    Raises:
        VerificationError: The counter is not higher than all of the line.
    """
    highest = max(
        (one.release for one in releases(targets).values() if one.name == name),
        default=0,
    )
    highest = max(highest, fields.floors_of(targets).get(name, 1) - 1)
    if release and release <= highest:
        raise VerificationError(
            f"{name} has release {highest} already: devices go to no lower one.",
            hint="Leave the counter out, and the next one is taken.",
        )
    made = fields.Release(name=name, release=release or highest + 1)
    for package, length in packages.items():
        path = fields.path_of(package)
        targets.targets[path] = TargetFile(
            length,
            {"sha256": digests.parse(package)},
            path,
            unrecognized_fields={"custom": msgspec.to_builtins(made)},
        )
    return made


def withdraw(targets: Targets, name: str, below: int) -> list[str]:
    """Forbids all releases of a line below one; returns the packages that this withdraws.

    Args:
        targets: A draft, which is changed.
        name: Of the line.
        below: The lowest release that may still run.

    Raises:
        RollbackError: Devices were told a higher floor before.
    """
    floors = fields.floors_of(targets)
    if below < floors.get(name, 0):
        raise VerificationError(f"The floor of {name} is {floors[name]}; it only goes up.")
    targets.unrecognized_fields[fields.FLOORS] = floors | {name: below}
    gone = [
        package
        for package, one in releases(targets).items()
        if one.name == name and one.release < below
    ]
    for package in gone:
        del targets.targets[fields.path_of(package)]
    return gone


def change_keys(root: Root, role: RoleName, keys: Sequence[Key], threshold: int = 0) -> None:
    """Gives one of the top-level roles other keys; raises SigningKeyError for too few.

    Args:
        root: A draft, which is changed.
        role: Whose.
        keys: All that it has from now on.
        threshold: How many have to sign; 0 for as many as before.
    """
    needed = threshold or root.roles[role].threshold
    if len({key.keyid for key in keys}) < needed:
        raise SigningKeyError(f"{needed} keys of the role {role} have to sign; give as many.")
    for keyid in list(root.roles[role].keyids):
        root.revoke_key(keyid, role)
    for key in keys:
        root.add_key(key, role)
    root.roles[role].threshold = needed


def change_directors(targets: Targets, keys: Sequence[Key]) -> None:
    """Gives wishes and commands other signers.

    Args:
        targets: A draft, which is changed.
        keys: All directors from now on.
    """
    role = DelegatedRole(
        fields.DIRECTOR, [key.keyid for key in keys], 1, terminating=False, paths=[]
    )
    targets.delegations = Delegations({key.keyid: key for key in keys}, {fields.DIRECTOR: role})


def sign_draft(draft: Root | Targets, signers: Iterable[SigningKey]) -> bytes:
    """The draft with the signatures of some of its keys; `add_signatures` adds the others'."""
    return sign(draft, signers)


def add_signatures(data: bytes, signers: Iterable[SigningKey]) -> bytes:
    """Signed metadata with further signatures: each holder of a key signs at home.

    Raises:
        VerificationError: It is no metadata.
    """
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise VerificationError(f"This is no signed metadata: {error}.") from error
    for key in signers:
        metadata.sign(key.signer, append=True)
    return metadata.to_bytes()
