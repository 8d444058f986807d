"""What `--set` takes for Kubernetes."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from scoring.errors import FieldpostError, UsageError
from serve.distribution.reference import parse_reference
from serve.server.settings import PREFIX
from serve.targets.kubernetes import quantities, texts
from serve.targets.local.settings import ServingSettings, check_serving
from serve.targets.settings import parse_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTAINER_PORT = 5001
LEAST_MEMORY = 64 << 20

Percent = Annotated[int, msgspec.Meta(ge=1, le=100)]
Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Choice = Literal["auto", "on", "off"]

_ENV_NAME = re.compile(r"(?!\.\.)[-._a-zA-Z][-._a-zA-Z0-9]{0,252}", re.ASCII)
_PATH = re.compile(r"/(?:[A-Za-z0-9/._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})*", re.ASCII)
# What proxies read in more than one way.
_ODD_PATH = re.compile(r"//|/\.{1,2}(?:/|$)|%2f|%2e", re.IGNORECASE)
_USER = re.compile(r"image|[1-9][0-9]{0,9}", re.ASCII)
_MOST_USER = 2**31 - 1
_GPU = re.compile(r"[a-z0-9.-]+\.[a-z0-9.-]+/[A-Za-z0-9._-]+", re.ASCII)
# Of this machine, where no pod is.
_FILES = {
    "api_keys": "api_keys_secret",
    "tls_cert": "tls_secret",
    "tls_key": "tls_secret",
    "tls_client_ca": "client_ca_secret",
}
_WRITTEN = ("jobs_dir", "access_log")
_MOST_ENV = 1 << 20
"""Bytes in all, which one Secret takes."""
_NAMED = (
    *("api_keys_secret", "tls_secret", "client_ca_secret", "service_account", "priority_class"),
    *("runtime_class", "ingress_class", "ingress_tls_secret", "scaler_auth"),
)


class KubernetesSettings(ServingSettings, frozen=True, kw_only=True):
    """Settings of a deployment on Kubernetes: those of serving, and these.

    Resources are those of one pod, in which `workers` processes answer. `port` is the Service's:
    80, or 443 with TLS.

    Attributes:
        host: What the server in a pod listens on; `::` in a cluster of IPv6.
        context: Of the kubeconfig; the current one by default.
        namespace: That of the context by default.
        registry: `REGISTRY/NAME`, to which the image is pushed where it is not there.
        image: `REGISTRY/NAME@sha256:…`, an image of the package that is there already.
        base: The base under the package, where the image is pushed.
        plain_http: The registry answers without TLS.
        pull_secret: Secrets with the registry's password, with commas.
        pull_login: Makes that Secret from this machine's own login to the registry.
        replicas: How many pods; with a scaler the least.
        max_replicas: The most pods; there is a scaler where it is given.
        target_cpu: Percent of the requested processor time that the scaler keeps to.
        target_in_flight: Requests in one pod at once that the scaler keeps to, instead.
        scaler: `hpa`: of Kubernetes itself. `keda`: a ScaledObject.
        scale_to_zero: KEDA takes the last pod away too.
        prometheus: Its address, for KEDA.
        scale_query: In Prometheus' language; by default the requests in flight in all pods.
        scale_threshold: The query's value for one pod. Default: that of `target_in_flight`.
        cooldown_s: Until KEDA takes the last pod away.
        scaler_auth: A TriggerAuthentication for Prometheus.
        cpu: That a pod is promised: `500m`, `2`.
        cpu_limit: The most; by default what the node has left.
        memory: That a pod is promised: `512Mi`. Derived from the package by default.
        memory_limit: The most. Default: twice the promise, and 256 MiB beyond it at least.
        tmp: The most in `/tmp`, on the node's disk.
        gpus: How many.
        gpu_resource: Of what kind.
        node_selector: `KEY=VALUE`, several with commas.
        tolerations: `KEY[=VALUE][:EFFECT]`, several with commas.
        spread: `soft`: over nodes and zones as far as it goes. `hard`: no two more on one node
            than on another.
        priority_class: A PriorityClass.
        runtime_class: A RuntimeClass.
        user: A number, or `image` where the cluster chooses it (OpenShift).
        service_account: One that is there; by default one of its own without any right.
        service: How the Service is reached.
        hostname: From outside, through `gateway` or `ingress_class`.
        path: Below the hostname.
        gateway: `[NAMESPACE/]NAME` of a Gateway; there is an HTTPRoute.
        ingress_class: An IngressClass; there is an Ingress.
        ingress_tls_secret: The certificate for the hostname.
        allow_from: Who may ask: `any`, `namespace` (its own), or namespaces with commas.
        egress: What pods may ask: `all`, `dns`, `none`. `auto`: all for scripts, else what the
            settings of the server need.
        monitor: A ServiceMonitor for Prometheus; `auto`: where the cluster knows them.
        monitor_labels: By which Prometheus finds it.
        monitor_key_secret: A Secret whose `key` may read `/metrics`.
        api_keys_secret: A Secret whose `keys.json` holds hashed API keys.
        tls_secret: A Secret of type kubernetes.io/tls: the server's own certificate.
        client_ca_secret: A Secret whose `ca.crt` holds the authorities of clients.
        env_secret: Secrets whose keys become environment variables.
        env_config: ConfigMaps whose keys become environment variables.
        volumes: `CLAIM:/folder[:ro]`, several with commas.
        labels: On every object and pod: `KEY=VALUE`, several with commas.
        annotations: On every pod: `KEY=VALUE`, several with commas.
        liveness: Whether the cluster restarts a server that hangs.
        leave_s: Between the order to end and the drain, while the cluster takes a pod's address
            out of use.
    """

    host: Text = "0.0.0.0"  # noqa: S104 - of the pod's own network
    context: Text | None = None
    namespace: Text | None = None
    registry: Text | None = None
    image: Text | None = None
    base: Text | None = None
    plain_http: bool = False
    pull_secret: Text | None = None
    pull_login: bool = False
    replicas: Count = 2
    max_replicas: Count | None = None
    target_cpu: Percent = 70
    target_in_flight: Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)] | None = None
    scaler: Literal["hpa", "keda"] = "hpa"
    scale_to_zero: bool = False
    prometheus: Text | None = None
    scale_query: Text | None = None
    scale_threshold: Annotated[float, msgspec.Meta(gt=0, le=1e12)] | None = None
    cooldown_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 300
    scaler_auth: Text | None = None
    cpu: str = "500m"
    cpu_limit: str | None = None
    memory: str | None = None
    memory_limit: str | None = None
    tmp: str = "256Mi"
    gpus: Annotated[int, msgspec.Meta(ge=0, le=128)] = 0
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: str | None = None
    tolerations: str | None = None
    spread: Literal["soft", "hard", "off"] = "soft"
    priority_class: Text | None = None
    runtime_class: Text | None = None
    user: str = "65532"
    service_account: Text | None = None
    service: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    hostname: Text | None = None
    path: str = "/"
    gateway: Text | None = None
    ingress_class: Text | None = None
    ingress_tls_secret: Text | None = None
    allow_from: Text = "any"
    egress: Literal["auto", "all", "dns", "none"] = "auto"
    monitor: Choice = "auto"
    monitor_labels: str | None = None
    monitor_key_secret: Text | None = None
    api_keys_secret: Text | None = None
    tls_secret: Text | None = None
    client_ca_secret: Text | None = None
    env_secret: Text | None = None
    env_config: Text | None = None
    volumes: str | None = None
    labels: str | None = None
    annotations: str | None = None
    liveness: bool = True
    leave_s: Annotated[int, msgspec.Meta(ge=0, le=600)] = 5

    @property
    def tls(self) -> bool:
        """Whether the server in a pod speaks TLS."""
        return bool(self.tls_secret)

    @property
    def service_port(self) -> int:
        """Of the Service."""
        return self.port or (443 if self.tls else 80)

    @property
    def scales(self) -> bool:
        """Whether something else than the user sets the number of pods."""
        return self.max_replicas is not None


def parse(given: Mapping[str, Any]) -> KubernetesSettings:
    """The settings, checked as far as they can be without the cluster.

    Raises:
        UsageError: An unknown key, or a value that is not valid.
    """
    settings = parse_settings(KubernetesSettings, given)
    check_serving(settings)
    _check_place(settings)
    _check_serving(settings)
    _check_environment(settings)
    _check_scaling(settings)
    _check_resources(settings)
    _check_texts(settings)
    _check_exposure(settings)
    return settings


def _check_place(settings: KubernetesSettings) -> None:
    for name in ("image", "registry"):
        text = getattr(settings, name)
        if text is None:
            continue
        try:
            reference = parse_reference(text)
        except FieldpostError as error:
            raise UsageError(error.message, hint=error.hint, where=name) from error
        if name == "image" and not reference.digest.startswith("sha256:"):
            raise UsageError(
                f"The image {text!r} is named by a tag, which may be another one tomorrow.",
                hint="Write image=REGISTRY/NAME@sha256:…; 'fieldpost package push' prints it.",
                where=name,
            )
        if name == "registry" and (reference.digest or reference.tag):
            raise UsageError(
                f"The setting 'registry' is {text!r}: images are pushed there by their digest.",
                hint=f"Write registry={reference.name}.",
                where=name,
            )
    if settings.image and settings.registry:
        raise UsageError("Give 'image' or 'registry', not both.", where="image")


def _check_serving(settings: KubernetesSettings) -> None:
    for name, instead in _FILES.items():
        if getattr(settings, name) or settings.server.get(name):
            raise UsageError(
                f"The setting {name!r} names a file of this machine, where no pod is.",
                hint=f"Put it into a Secret and write {instead}=NAME.",
                where=name,
            )
    if f"{PREFIX}PORT" in settings.env:
        raise UsageError(
            "The port in a pod is fixed.",
            hint="Write port=…, which is the Service's.",
            where=f"env.{PREFIX}PORT",
        )
    if settings.client_ca_secret and not settings.tls:
        raise UsageError(
            "'client_ca_secret' needs 'tls_secret': certificates are shown over TLS only.",
            where="client_ca_secret",
        )


def _check_environment(settings: KubernetesSettings) -> None:
    for name in settings.env:
        if not _ENV_NAME.fullmatch(name):
            raise UsageError(
                f"A Secret cannot hold the variable {name!r}.",
                hint="Use letters, digits, '_', '-' and '.'.",
                where=f"env.{name}",
            )
    size = sum(len(str(text).encode()) for text in settings.env.values())
    if size > _MOST_ENV:
        raise UsageError(
            f"The variables hold {size >> 10} KiB; a Secret takes {_MOST_ENV >> 10} KiB.",
            hint="Put large values into files: of the model, or of a volume.",
            where="env",
        )


def _check_scaling(settings: KubernetesSettings) -> None:
    most = settings.max_replicas
    if most is not None and most < settings.replicas:
        raise UsageError(
            f"'max_replicas' is {most}, less than 'replicas', which is {settings.replicas}.",
            where="max_replicas",
        )
    if settings.scaler == "keda":
        _check_keda(settings)
    elif settings.scale_to_zero:
        raise UsageError(
            "Only KEDA takes the last pod away.", hint="Add scaler=keda.", where="scale_to_zero"
        )


def _check_keda(settings: KubernetesSettings) -> None:
    if settings.max_replicas is None:
        raise UsageError("KEDA needs to know the most pods.", hint="Add max_replicas=10.")
    queries = settings.target_in_flight is not None or settings.scale_query is not None
    if queries and not settings.prometheus:
        raise UsageError(
            "KEDA asks Prometheus, and does not know where it is.",
            hint="Add prometheus=http://prometheus.monitoring:9090.",
            where="prometheus",
        )
    if settings.scale_query and not (settings.scale_threshold or settings.target_in_flight):
        raise UsageError(
            "The query's value for one pod is missing.",
            hint="Add scale_threshold=10.",
            where="scale_threshold",
        )
    if settings.scale_to_zero and not settings.scale_query:
        raise UsageError(
            "Without a pod nothing of ours counts requests: what wakes the deployment?",
            hint="Add scale_query=…, a query of what stands before it: a gateway, a queue.",
            where="scale_query",
        )


def _check_resources(settings: KubernetesSettings) -> None:
    quantities.require_cores("cpu", settings.cpu)
    if settings.cpu_limit is not None:
        limit = quantities.require_cores("cpu_limit", settings.cpu_limit)
        if limit < quantities.parse("cpu", settings.cpu):
            raise UsageError("'cpu_limit' is less than 'cpu'.", where="cpu_limit")
    memory = quantities.require_bytes("memory", settings.memory or "512Mi", LEAST_MEMORY)
    if settings.memory_limit is not None:
        most = quantities.require_bytes("memory_limit", settings.memory_limit, LEAST_MEMORY)
        if settings.memory is not None and most < memory:
            raise UsageError("'memory_limit' is less than 'memory'.", where="memory_limit")
    quantities.require_bytes("tmp", settings.tmp, 1 << 20)
    if not _GPU.fullmatch(settings.gpu_resource):
        raise UsageError(
            f"The setting 'gpu_resource' cannot be {settings.gpu_resource!r}.",
            hint="Write gpu_resource=nvidia.com/gpu.",
            where="gpu_resource",
        )
    fine = _USER.fullmatch(settings.user)
    if not fine or (settings.user != "image" and int(settings.user) > _MOST_USER):
        raise UsageError(
            f"The setting 'user' cannot be {settings.user!r}.",
            hint="Write a number that is not 0, or user=image.",
            where="user",
        )


def _check_texts(settings: KubernetesSettings) -> None:
    for name in _NAMED:
        text = getattr(settings, name)
        if text is not None:
            texts.require_name(name, text)
    if settings.namespace is not None:
        texts.require_label("namespace", settings.namespace)
    for name in ("env_secret", "env_config", "pull_secret"):
        texts.names(name, getattr(settings, name))
    texts.mapping("node_selector", settings.node_selector)
    texts.mapping("monitor_labels", settings.monitor_labels)
    texts.mapping("annotations", settings.annotations, values=False)
    texts.tolerations("tolerations", settings.tolerations)
    _check_folders(settings)
    if settings.allow_from not in ("any", "namespace"):
        for name in texts.parts(settings.allow_from):
            texts.require_label("allow_from", name)
    for key in texts.mapping("labels", settings.labels):
        prefix = key.rpartition("/")[0]
        if prefix in ("fieldpost.dev", "app.kubernetes.io"):
            raise UsageError(
                f"The label {key!r} is one that Fieldpost sets itself.", where="labels"
            )


def _check_folders(settings: KubernetesSettings) -> None:
    """Where a pod writes: its own file system is read-only."""
    claims = texts.claims("volumes", settings.volumes)
    free = ["/tmp", "/dev", *(folder for _, folder, fixed in claims if not fixed)]  # noqa: S108
    for name in _WRITTEN:
        text = str(getattr(settings, name, None) or settings.server.get(name) or "")
        if text.startswith("/") and not any(PurePosixPath(text).is_relative_to(f) for f in free):
            raise UsageError(
                f"Pods cannot write to {text}, which {name!r} names.",
                hint=f"Mount a volume there (volumes=CLAIM:/folder), or write {name}=/tmp/….",
                where=name,
            )


def _check_exposure(settings: KubernetesSettings) -> None:
    ways = [name for name in ("gateway", "ingress_class") if getattr(settings, name)]
    if len(ways) > 1:
        raise UsageError("Give 'gateway' or 'ingress_class', not both.", where="gateway")
    if settings.hostname is not None:
        texts.require_host("hostname", settings.hostname)
        if not ways:
            raise UsageError(
                "A hostname needs something that answers for it.",
                hint="Add gateway=[NAMESPACE/]NAME or ingress_class=NAME.",
                where="hostname",
            )
    if settings.gateway is not None:
        namespace, slash, name = settings.gateway.rpartition("/")
        texts.require_name("gateway", name)
        if slash:
            texts.require_name("gateway", namespace)
    _check_path(settings)
    if settings.ingress_tls_secret and not (settings.ingress_class and settings.hostname):
        raise UsageError(
            "'ingress_tls_secret' needs 'ingress_class' and 'hostname'.", where="ingress_tls_secret"
        )


def _check_path(settings: KubernetesSettings) -> None:
    if not _PATH.fullmatch(settings.path) or _ODD_PATH.search(settings.path):
        raise UsageError(
            f"The setting 'path' cannot be {settings.path!r}.",
            hint="Write path=/iris.",
            where="path",
        )
    if settings.path != "/" and settings.ingress_class:
        raise UsageError(
            "An Ingress hands paths on as they are, and the server would not know this one.",
            hint="Give the deployment a hostname of its own, or use a gateway, which rewrites.",
            where="path",
        )
