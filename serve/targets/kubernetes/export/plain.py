"""Plain YAML: one file for `kubectl apply`, or `podman kube play`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.targets.kubernetes.export.documents import Files, stream
from serve.targets.kubernetes.objects import render
from serve.targets.kubernetes.objects.meta import names_of

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable


def plain_files(of: Deployable) -> Files:
    """The objects themselves."""
    return {f"{names_of(of).base}.yaml": stream(render(of), about(of))}


def about(of: Deployable) -> str:
    """What a file is, for who opens it."""
    return f"{of.name}: the package {of.package.digest}\nWritten by 'fieldpost deployment export'."
