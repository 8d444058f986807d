"""Takes away what a revision no longer has, and nothing else ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.targets.kubernetes.faults import DeniedError, MissingError
from serve.targets.kubernetes.kinds import CORE, OPTIONAL, Kind, Object, name_of, title_of
from serve.targets.kubernetes.ownership import Owner, identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve.targets.base import Progress
    from serve.targets.kubernetes.client import Cluster


def owned_objects(
    cluster: Cluster, owner: Owner, kinds: Iterable[Kind] = (*CORE, *OPTIONAL)
) -> Iterator[Object]:
    """All that we have made for a deployment, of all kinds that we ever make.

    Kinds that the cluster does not know, or that the login may not list, have none: what may not
    be listed could not have been applied either.
    """
    for kind in kinds:
        try:
            found = cluster.list(kind, labels=owner.labels).items
        except MissingError:
            continue
        except DeniedError:
            if kind not in OPTIONAL:
                raise
            continue
        yield from (each for each in found if owner.made(each))


def prune(
    cluster: Cluster,
    owner: Owner,
    wanted: Iterable[Object],
    progress: Progress,
    kinds: Iterable[Kind] = (*CORE, *OPTIONAL),
) -> list[str]:
    """Deletes what is the deployment's own and is not wanted; what was deleted.

    Each is deleted by its identity: one that somebody has made anew under its name stays.
    """
    kept = {identity(each) for each in wanted}
    gone = []
    # What needs others goes first: routes before services, pods before what they mount.
    for item in reversed(list(owned_objects(cluster, owner, kinds))):
        if identity(item) in kept:
            continue
        if cluster.delete(str(item["kind"]), name_of(item), uid=item["metadata"].get("uid")):
            progress(f"removed {title_of(item)}")
            gone.append(title_of(item))
    return gone
