"""What is exported: a deployment as the registry has it, or a package on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import UsageError
from serve.targets.kubernetes.deployable import Deployable, facts_of
from serve.targets.kubernetes.settings import KubernetesSettings, parse
from serve.targets.local.settings import ServingSettings
from serve.targets.settings import ENV_PREFIX, SERVER_PREFIX

if TYPE_CHECKING:
    from scoring.packages.storage import Blobs
    from serve.registry.records import Deployment
    from serve.targets.kubernetes.export import Form

# Of one machine, or of one engine.
_OF_MACHINES = frozenset(
    {
        *("host", "port", "workers", "api_keys", "tls_cert", "tls_key", "tls_client_ca"),
        *("jobs_dir", "access_log", "oidc_jwks", "metrics_dir"),
    }
)
_TARGET = "kubernetes"

ImageDigest = Callable[[KubernetesSettings], str]
"""Puts the package on its base and tells the image's digest."""


def carried(record: Deployment | None) -> tuple[dict[str, Any], list[str]]:
    """The settings of a deployment that mean the same on Kubernetes, and the keys of the others."""
    if record is None:
        return {}, []
    if record.target == _TARGET:
        return dict(record.settings), []
    kept = {key: text for key, text in record.settings.items() if _is_common(key)}
    return kept, sorted(set(record.settings) - set(kept))


def _is_common(key: str) -> bool:
    name = key.removeprefix(SERVER_PREFIX)
    if key.startswith(ENV_PREFIX):
        return True
    known = {field.encode_name for field in msgspec.structs.fields(ServingSettings)}
    return name not in _OF_MACHINES and (name != key or key in known or key == "base")


def deployable(
    name: str,
    package: str,
    settings: Mapping[str, Any],
    blobs: Blobs,
    image_digest: ImageDigest,
    *,
    form: Form = "yaml",
    revision: int = 1,
) -> Deployable:
    """What the files are made of.

    Args:
        name: Of the deployment.
        package: The digest.
        settings: As a user gives them.
        blobs: That hold the package.
        image_digest: Asked where the settings name no image.
        form: Ray needs no image.
        revision: Its number.

    Raises:
        UsageError: A setting is not valid, or nothing says where the image will be.
    """
    chosen = parse(settings)
    image = chosen.image
    if image is None and form == "ray":
        image = f"localhost/package@{package}"
    elif image is None and chosen.registry is None:
        raise UsageError(
            "Nothing says where the cluster finds the image.",
            hint="Add --set registry=REGISTRY/NAME, where 'fieldpost package push' puts it, or "
            "--set image=REGISTRY/NAME@sha256:….",
            where="registry",
        )
    elif image is None:
        image = f"{chosen.registry}@{image_digest(chosen)}"
    return Deployable(
        name=name,
        image=image,
        package=facts_of(package, blobs),
        settings=chosen,
        namespace=chosen.namespace or "",
        revision=revision,
        outside=True,
    )
