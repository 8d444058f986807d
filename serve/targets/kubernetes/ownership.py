"""Whose an object is: what belongs to a deployment, and who owns which of its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from scoring.errors import AlreadyExistsError
from serve.targets.kubernetes import labels
from serve.targets.kubernetes.kinds import Object, name_of, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MANAGER = "fieldpost"
"""The field manager: the name under which we own fields."""


class Owner(NamedTuple):
    """A deployment of a workspace.

    Attributes:
        workspace: The workspace's identity.
        deployment: Its name.
    """

    workspace: str
    deployment: str

    @property
    def labels(self) -> dict[str, str]:
        """On everything that is its own."""
        return labels.owned(self.workspace, self.deployment)

    def has(self, item: Object) -> bool:
        """Whether the object carries all of its labels."""
        found = (item.get("metadata") or {}).get("labels") or {}
        return all(found.get(key) == text for key, text in self.labels.items())

    def made(self, item: Object) -> bool:
        """Whether we made it, and no controller on behalf of something else of ours.

        Controllers copy labels to what they make, and name what they made it for.
        """
        metadata = item.get("metadata") or {}
        controlled = any(each.get("controller") for each in metadata.get("ownerReferences") or ())
        return self.has(item) and not controlled and any(_entries(item, MANAGER))


def require_ours(item: Object, live: Object | None, owner: Owner, where: str) -> None:
    """Raises where an object of that name is somebody else's.

    Raises:
        AlreadyExistsError: It is there, and does not belong to the deployment.
    """
    if live is None or owner.has(live):
        return
    found = (live.get("metadata") or {}).get("labels") or {}
    manager = found.get(labels.APP_MANAGER)
    whose = f" It is managed by {manager!r}." if manager and manager != labels.MANAGER else ""
    other = found.get(labels.DEPLOYMENT)
    if other and found.get(labels.WORKSPACE) != owner.labels.get(labels.WORKSPACE):
        whose = f" It is of the deployment {other!r} of another workspace."
    namespace = (live.get("metadata") or {}).get("namespace", "")
    raise AlreadyExistsError(
        f"{where} has {title_of(item)} in the namespace {namespace!r} already, and it is not of "
        f"this deployment.{whose}",
        hint="Choose another name for the deployment, or another namespace: --set namespace=NAME.",
    )


def owns_field(item: Object, *path: str, manager: str = MANAGER) -> bool:
    """Whether a manager's applies own a field: `owns_field(item, "spec", "replicas")`."""
    return any(_reaches(tree, path) for tree in _entries(item, manager))


def others_own(item: Object, *path: str) -> bool:
    """Whether somebody else owns a field, too."""
    entries = (item.get("metadata") or {}).get("managedFields") or ()
    return any(
        _reaches(each.get("fieldsV1") or {}, path)
        for each in entries
        if each.get("manager") != MANAGER
    )


def identity(item: Object) -> tuple[str, str]:
    """Kind and name: what tells the objects of one deployment apart."""
    return str(item.get("kind")), name_of(item)


def _entries(item: Object, manager: str) -> Iterator[dict[str, Any]]:
    for each in (item.get("metadata") or {}).get("managedFields") or ():
        if each.get("manager") == manager and each.get("operation") == "Apply":
            yield each.get("fieldsV1") or {}


def _reaches(tree: dict[str, Any], path: tuple[str, ...]) -> bool:
    for step in path:
        if f"f:{step}" not in tree:
            return False
        tree = tree[f"f:{step}"]
    return True
