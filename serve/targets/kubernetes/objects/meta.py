"""What all objects have: their kind, their name, and the labels that say whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve.targets.kubernetes import labels, texts
from serve.targets.kubernetes.names import Names

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable

Object = dict[str, Any]


def head(of: Deployable, api: str, kind: str, name: str = "") -> Object:
    """The beginning of an object.

    Args:
        of: The deployment's revision.
        api: `apps/v1`.
        kind: `Deployment`.
        name: By default the deployment's base name.
    """
    metadata: Object = {"name": name or names_of(of).base}
    if of.namespace:
        metadata["namespace"] = of.namespace
    metadata["labels"] = labels_of(of)
    metadata["annotations"] = annotations_of(of)
    return {"apiVersion": api, "kind": kind, "metadata": metadata}


def names_of(of: Deployable) -> Names:
    """The names of its objects."""
    return Names.of(of.name)


def selector_of(of: Deployable) -> dict[str, str]:
    """What finds its pods."""
    return labels.selector(names_of(of).base)


def labels_of(of: Deployable) -> dict[str, str]:
    """On every object and pod: the user's, and ours over them."""
    package = of.package
    found = {
        **texts.mapping("labels", of.settings.labels),
        **selector_of(of),
        **labels.owned(of.workspace, of.name),
        labels.REVISION: str(of.revision),
        labels.PACKAGE: labels.package_value(package.digest),
        labels.MODEL: labels.label_value(package.model),
        labels.VERSION: labels.label_value(package.version),
        labels.APP_VERSION: labels.label_value(package.version),
    }
    return {key: found[key] for key in sorted(found) if found[key] != ""}


def annotations_of(of: Deployable) -> dict[str, str]:
    """What is too long for labels."""
    return {
        labels.PREFIX + "deployment": of.name,
        labels.IMAGE: of.reference,
        labels.PACKAGE: of.package.digest,
    }
