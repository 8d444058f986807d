"""The settings of the server as a ConfigMap, and `env.*` as a Secret."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from serve.server.settings import PREFIX
from serve.targets.kubernetes import texts
from serve.targets.kubernetes.objects.meta import Object, head, names_of
from serve.targets.local.settings import worker_environment

if TYPE_CHECKING:
    from serve.targets.kubernetes.deployable import Deployable

KEYS_FOLDER = "/etc/fieldpost/keys"
TLS_FOLDER = "/etc/fieldpost/tls"
CLIENT_CA_FOLDER = "/etc/fieldpost/client-ca"
JOBS_FOLDER = "/tmp/fieldpost-jobs"  # noqa: S108 - the pod's own


def config_map(of: Deployable) -> Object:
    """It never changes: another content has another name."""
    data = server_variables(of)
    return {
        **head(of, "v1", "ConfigMap", names_of(of).config(data)),
        "immutable": True,
        "data": data,
    }


def secret(of: Deployable) -> Object | None:
    """The values of `env.*`; None where there are none, or somebody else keeps them."""
    if not of.settings.env or of.outside:
        return None
    data = {
        key: base64.b64encode(text.encode()).decode()
        for key, text in sorted(of.settings.env.items())
    }
    return {
        **head(of, "v1", "Secret", names_of(of).environment(of.revision)),
        "immutable": True,
        "type": "Opaque",
        "data": data,
    }


def server_variables(of: Deployable) -> dict[str, str]:
    """What is passed to the server; the files that it reads are mounted by `pod.volumes`."""
    settings = of.settings
    variables = worker_environment(settings, {f"{PREFIX}JOBS_DIR": JOBS_FOLDER})
    for name in settings.env:
        variables.pop(name, None)
    variables[f"{PREFIX}HOST"] = settings.host
    if settings.workers > 1:
        variables[f"{PREFIX}WORKERS"] = str(settings.workers)
    if settings.api_keys_secret:
        variables[f"{PREFIX}API_KEYS"] = f"{KEYS_FOLDER}/keys.json"
    if settings.tls_secret:
        variables[f"{PREFIX}TLS_CERT"] = f"{TLS_FOLDER}/tls.crt"
        variables[f"{PREFIX}TLS_KEY"] = f"{TLS_FOLDER}/tls.key"
    if settings.client_ca_secret:
        variables[f"{PREFIX}TLS_CLIENT_CA"] = f"{CLIENT_CA_FOLDER}/ca.crt"
    return dict(sorted(variables.items()))


def environment_sources(of: Deployable) -> list[Object]:
    """Where a pod's environment comes from: the last has the last word."""
    settings, names = of.settings, names_of(of)
    found: list[Object] = [{"configMapRef": {"name": names.config(server_variables(of))}}]
    found += [
        {"configMapRef": {"name": name}} for name in texts.names("env_config", settings.env_config)
    ]
    found += [
        {"secretRef": {"name": name}} for name in texts.names("env_secret", settings.env_secret)
    ]
    if settings.env:
        own = names.secret if of.outside else names.environment(of.revision)
        found.append({"secretRef": {"name": own}})
    return found
