"""How a deployment or an endpoint is reached from this machine, by its name."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import NotFoundError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.targets.base import Route
    from serve.workspace import Workspace


class Reached(NamedTuple):
    """Where requests go.

    Attributes:
        route: The way from here.
        certificate: The file of a certificate of its own; empty for none.
    """

    route: Route
    certificate: str = ""


@contextlib.contextmanager
def reach(workspace: Workspace, name: str) -> Iterator[Reached]:
    """Where the deployment or the endpoint of a name answers, for the time of the block.

    Args:
        workspace: That knows it.
        name: Of a deployment; of an endpoint where there is no such deployment.

    Raises:
        NotFoundError: There is none of either.
        TargetError: It answers nowhere, or what leads to it is not to be had.
    """
    try:
        view = workspace.deployments.get(name)
    except NotFoundError:
        if name not in {each.name for each in workspace.registry.endpoints.list()}:
            raise
        endpoint = workspace.endpoints.get(name)
        _require_url(name, endpoint.url, endpoint.note)
        with workspace.endpoints.reach(name) as route:
            yield Reached(route, str(endpoint.settings.get("tls_cert") or ""))
        return
    _require_url(name, view.url, view.note)
    with workspace.deployments.reach(name) as route:
        yield Reached(route, view.certificate)


def _require_url(name: str, url: str, note: str) -> None:
    if not url:
        raise TargetError(
            f"{name!r} answers nowhere: {note.rstrip('.') or 'it has no address'}.",
            hint="'fieldpost deployment list' and 'fieldpost endpoint list' say what runs.",
        )
