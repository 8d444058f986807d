"""Deployments in the forms of other tools: files that lint, carry digests and hold no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable
    from serve.targets.kubernetes.export.documents import Files

Form = Literal["yaml", "kustomize", "helm", "kserve", "ray"]
FORMS: tuple[Form, ...] = get_args(Form)


def export_files(of: Deployable, form: Form) -> Files:
    """The files of one form, path below the folder to content; `ray` needs the package besides.

    Args:
        of: With `outside`: no form writes secrets.
        form: Which.
    """
    from serve.targets.kubernetes.export import (  # noqa: PLC0415 - one of them is wanted
        helm,
        kserve,
        kustomize,
        plain,
        ray_serve,
    )

    makers = {
        "yaml": plain.plain_files,
        "kustomize": kustomize.kustomize_files,
        "helm": helm.helm_files,
        "kserve": kserve.kserve_files,
        "ray": ray_serve.ray_files,
    }
    return makers[form](of)
