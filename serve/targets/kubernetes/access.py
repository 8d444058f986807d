"""Which cluster is meant, and how to log in to it: kubeconfig files, or the pod's own account."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from scoring.errors import TargetError, UsageError
from serve.targets.kubernetes.plugins import Command, cluster_info

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lightkube.config.kubeconfig import SingleConfig

KUBECONFIG = "KUBECONFIG"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
IN_CLUSTER = "in-cluster"
_DEFAULT = "~/.kube/config"
_LISTS = ("clusters", "contexts", "users")
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class Access(NamedTuple):
    """A cluster and a login.

    Attributes:
        context: The name of the context; `in-cluster` for the pod's own account.
        server: The URL of its API.
        namespace: Of the context; `default` where it names none.
        config: As lightkube has it.
        proxy: The proxy on the way; None for what the environment says.
        server_name: That the cluster's certificate is for, where it is not that of its URL.
        headers: That say as whom the login acts.
        plugin: That gives the login.
        told: What it is told of the cluster.
    """

    context: str
    server: str
    namespace: str
    config: SingleConfig
    proxy: str | None = None
    server_name: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    plugin: Command | None = None
    told: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"Access(context={self.context!r}, server={self.server!r})"

    @property
    def where(self) -> str:
        """The cluster, for messages."""
        if self.context == IN_CLUSTER:
            return "The cluster around this pod"
        return f"The cluster of the context {self.context!r}"


def find_access(
    context: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    service_account: str = SERVICE_ACCOUNT,
) -> Access:
    """The cluster that commands mean.

    Kubeconfig files come first, as with kubectl: those of `KUBECONFIG`, else `~/.kube/config`.
    Without any, a pod speaks with the cluster that it runs in.

    Args:
        context: The context; by default the current one.
        environment: Variables; by default those of this process.
        service_account: The folder of the pod's account.

    Raises:
        UsageError: There is no such context.
        TargetError: No cluster is configured, or a file cannot be read.
    """
    variables = os.environ if environment is None else environment
    merged = _merge(_paths(variables))
    inside = Path(service_account, "token").is_file() and "KUBERNETES_SERVICE_HOST" in variables
    if inside and (context == IN_CLUSTER or (context is None and not merged["contexts"])):
        return _in_cluster(variables, Path(service_account))
    return _from_files(merged, context)


def _from_files(merged: dict[str, Any], context: str | None) -> Access:
    from lightkube.config.kubeconfig import KubeConfig  # noqa: PLC0415 - heavy

    name = context or merged.get("current-context")
    known = [each["name"] for each in merged["contexts"]]
    if not known:
        raise TargetError(
            "No cluster is configured: there is no kubeconfig file.",
            hint=f"Name one with {KUBECONFIG}, or write {_DEFAULT} with your provider's tool.",
            where="context",
        )
    if not name:
        raise UsageError(
            "The kubeconfig names no current context.",
            hint=f"Choose one: --set context={'|'.join(known)}.",
            where="context",
        )
    if name not in known:
        raise UsageError(
            f"There is no context {name!r} in the kubeconfig.",
            hint=f"Choose one of: {', '.join(known)}.",
            where="context",
        )
    _require_entries(merged, name)
    user = _entry(merged, "users", _entry(merged, "contexts", name).get("user") or "")
    try:
        config = KubeConfig.from_dict(merged).get(name)
        plugin = _plugin(user)
    except (msgspec.ValidationError, KeyError) as error:
        raise TargetError(f"The kubeconfig is not valid: {error}.", where=KUBECONFIG) from error
    assert config is not None
    cluster = _entry(merged, "clusters", config.context.cluster)
    return Access(
        name,
        config.cluster.server,
        config.namespace,
        config,
        cluster.get("proxy-url"),
        str(cluster.get("tls-server-name") or ""),
        tuple(_impersonation(user)),
        plugin,
        cluster_info(cluster),
    )


def _plugin(user: Mapping[str, Any]) -> Command | None:
    return msgspec.convert(user["exec"], Command) if user.get("exec") else None


def _impersonation(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a user's `as` and its like mean: another one's rights."""
    if user.get("as"):
        yield "Impersonate-User", str(user["as"])
    if user.get("as-uid"):
        yield "Impersonate-Uid", str(user["as-uid"])
    for group in user.get("as-groups") or ():
        yield "Impersonate-Group", str(group)


def _require_entries(merged: dict[str, Any], name: str) -> None:
    """Raises where the context names a cluster or user that there is not."""
    context = _entry(merged, "contexts", name)
    for key, entries in (("cluster", "clusters"), ("user", "users")):
        wanted = context.get(key)
        missing = not any(each["name"] == wanted for each in merged[entries])
        if missing and (wanted or key == "cluster"):
            raise TargetError(
                f"The context {name!r} names the {key} {wanted!r}, which the kubeconfig lacks.",
                hint=f"Add it, or choose another context: '{KUBECONFIG}' may name several files.",
                where="context",
            )


def _entry(merged: dict[str, Any], entries: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next((each for each in merged[entries] if each["name"] == name), {})
    return found.get(entries.removesuffix("s")) or {}


def _paths(variables: Mapping[str, str]) -> list[Path]:
    given = variables.get(KUBECONFIG, "")
    named = [Path(each) for each in given.split(os.pathsep) if each]
    home = variables.get("HOME")
    default = [Path(home, ".kube/config") if home else Path(_DEFAULT).expanduser()]
    return named or default


def _merge(paths: list[Path]) -> dict[str, Any]:
    """All files as one: of what has the same name, the first counts, as kubectl has it."""
    merged: dict[str, Any] = {key: [] for key in _LISTS}
    for path in paths:
        document = _read(path)
        merged.setdefault("current-context", None)
        merged["current-context"] = merged["current-context"] or document.get("current-context")
        for key in _LISTS:
            known = {each["name"] for each in merged[key]}
            new = [_absolute(each, key, path) for each in document.get(key) or ()]
            merged[key].extend(each for each in new if each["name"] not in known)
    return merged


def _read(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - heavy

    try:
        text = path.expanduser().read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"The kubeconfig {path} cannot be read: {error}.") from error
    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise TargetError(f"The kubeconfig {path} is no YAML{line}.") from None
    if not isinstance(document, dict):
        raise TargetError(f"The kubeconfig {path} is not valid: it is no mapping.")
    return document


def _absolute(entry: object, key: str, path: Path) -> dict[str, Any]:
    """An entry with its files relative to the file that it stands in."""
    inner = key.removesuffix("s")
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise TargetError(f"The kubeconfig {path} is not valid: an entry of {key!r} has no name.")
    values = dict(entry.get(inner) or {})
    for name in _FILES:
        if values.get(name):
            values[name] = str(path.expanduser().absolute().parent / str(values[name]))
    plugin = values.get("exec")
    if isinstance(plugin, dict) and os.sep in str(plugin.get("command", "")):
        command = str(path.expanduser().absolute().parent / plugin["command"])
        values["exec"] = {**plugin, "command": command}
    return {"name": entry["name"], inner: values}


def _in_cluster(variables: Mapping[str, str], folder: Path) -> Access:
    from lightkube.config.kubeconfig import SingleConfig  # noqa: PLC0415 - heavy
    from lightkube.config.models import Cluster, Context, User  # noqa: PLC0415

    host = variables["KUBERNETES_SERVICE_HOST"]
    port = variables.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        namespace = (folder / "namespace").read_text().strip()
    except OSError:
        namespace = "default"
    config = SingleConfig(
        context_name=IN_CLUSTER,
        context=Context(cluster=IN_CLUSTER, user=IN_CLUSTER, namespace=namespace),
        cluster=Cluster(server=server, certificate_auth=str(folder / "ca.crt")),
        user=User(token_file=str(folder / "token")),
    )
    return Access(IN_CLUSTER, server, namespace, config)
