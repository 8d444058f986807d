"""Deployables to render, settings of every kind, and the rules of the restricted standard."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import strategies as st

from serve.targets.kubernetes.deployable import Deployable, PackageFacts
from serve.targets.kubernetes.settings import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

DIGEST = f"sha256:{'ab' * 32}"
IMAGE = f"registry.example.org/team/iris@sha256:{'cd' * 32}"
FACTS = PackageFacts(
    digest=DIGEST,
    model="iris",
    version="3",
    environment_bytes=120 << 20,
    model_bytes=4 << 20,
    script=False,
)
VERSIONS = ("1.35", "1.36", "1.37")
"""The three newest that kubernetes-validate knows."""


def deployable(
    name: str = "iris", facts: dict[str, Any] | None = None, **settings: Any
) -> Deployable:
    """What is rendered; settings as a user gives them, `env__NAME` for `env.NAME`."""
    given = {key.replace("__", "."): str(value) for key, value in settings.items()}
    return Deployable(
        name=name,
        image=IMAGE,
        package=msgspec.structs.replace(FACTS, **(facts or {})),
        settings=parse(given),
        namespace="models",
        workspace="0123456789abcdef",
        revision=4,
        monitors=True,
    )


def by_kind(objects: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """There is one of each kind."""
    found = {each["kind"]: each for each in objects}
    assert len(found) == len(objects)
    return found


_names = st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z0-9]", fullmatch=True)
_values = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True)
_pairs = st.dictionaries(
    st.from_regex(r"(example\.org/)?[A-Za-z][A-Za-z0-9._-]{0,20}[A-Za-z0-9]", fullmatch=True),
    _values,
    min_size=1,
    max_size=3,
).map(lambda found: ",".join(f"{key}={value}" for key, value in found.items()))
_lists = st.lists(_names, min_size=1, max_size=3).map(",".join)

_OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "replicas": st.integers(1, 500),
    "cpu": st.sampled_from(["1", "250m", "0.5", "16"]),
    "cpu_limit": st.sampled_from(["16", "32"]),
    "memory": st.sampled_from(["256Mi", "1Gi", "512M", "100000000"]),
    "memory_limit": st.sampled_from(["2Gi", "4G"]),
    "gpus": st.integers(0, 8),
    "gpu_resource": st.sampled_from(["nvidia.com/gpu", "amd.com/gpu"]),
    "node_selector": _pairs,
    "tolerations": st.sampled_from(["nvidia.com/gpu:NoSchedule", "a=b:NoExecute,c", "x=y"]),
    "spread": st.sampled_from(["soft", "hard", "off"]),
    "priority_class": _names,
    "runtime_class": _names,
    "user": st.sampled_from(["65532", "1000", "image"]),
    "service_account": _names,
    "service": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]),
    "port": st.integers(0, 65_535),
    "path": st.sampled_from(["/", "/iris", "/a/b-c"]),
    "allow_from": st.one_of(st.sampled_from(["any", "namespace"]), _lists),
    "egress": st.sampled_from(["auto", "all", "dns", "none"]),
    "monitor": st.sampled_from(["auto", "on", "off"]),
    "monitor_labels": _pairs,
    "monitor_key_secret": _names,
    "api_keys_secret": _names,
    "tls_secret": _names,
    "env_secret": _lists,
    "env_config": _lists,
    "pull_secret": _lists,
    "volumes": _names.map(lambda name: f"{name}:/data/{name}:ro,{name}-b:/cache"),
    "labels": _pairs,
    "annotations": _pairs,
    "leave_s": st.integers(0, 60),
    "liveness": st.sampled_from(["true", "false"]),
    "ready_timeout_s": st.floats(0.1, 3600),
    "drain_timeout_s": st.floats(0.1, 600),
    "workers": st.integers(1, 8),
    "rate_limit": st.floats(0, 1e6),
    "server.traces": st.sampled_from(["http://collector:4318"]),
    "env.TOKEN": st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30),
}
_TOGETHER: list[dict[str, Any]] = [
    {},
    {"max_replicas": 1000},
    {"max_replicas": 500, "target_in_flight": 1.5},
    {"max_replicas": 500, "scaler": "keda", "target_cpu": 50},
    {
        "max_replicas": 600,
        "scaler": "keda",
        "prometheus": "http://prometheus:9090",
        "scale_query": "sum(x)",
        "scale_threshold": "1e-7",
        "scale_to_zero": "true",
    },
    {"max_replicas": 700, "scaler": "keda", "prometheus": "http://p:9090", "target_in_flight": 9},
]
_WAYS: list[dict[str, Any]] = [
    {},
    {"gateway": "infra/public", "hostname": "iris.example.org"},
    {"gateway": "public"},
    {"ingress_class": "nginx", "hostname": "*.example.org", "ingress_tls_secret": "wild"},
    {"ingress_class": "nginx"},
]


@cache
def settings() -> st.SearchStrategy[dict[str, Any]]:
    """Settings of every kind, as a user writes them."""
    some = st.fixed_dictionaries({}, optional=_OPTIONAL)
    return st.tuples(some, st.sampled_from(_TOGETHER), st.sampled_from(_WAYS)).map(_as_texts)


def _as_texts(parts: tuple[dict[str, Any], ...]) -> dict[str, str]:
    found = {key: str(value) for part in parts for key, value in part.items()}
    if "ingress_class" in found:
        found.pop("path", None)
    if "tls_secret" in found and found["tls_secret"] < "n":
        found["client_ca_secret"] = "clients"
    return found


def deployables(**changed: Any) -> st.SearchStrategy[Deployable]:
    """Deployments of every kind."""
    names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,60}[a-z0-9])?", fullmatch=True)
    facts = st.builds(
        PackageFacts,
        digest=st.just(DIGEST),
        model=st.one_of(st.just(""), names),
        version=st.sampled_from(["", "1", "12"]),
        platforms=st.sampled_from([("linux/amd64",), ("linux/amd64", "linux/arm64")]),
        environment_bytes=st.integers(0, 8 << 30),
        model_bytes=st.integers(0, 80 << 30),
        script=st.booleans(),
    )
    made: dict[str, Any] = {
        "name": names,
        "image": st.just(IMAGE),
        "package": facts,
        "settings": settings().map(parse),
        "namespace": st.sampled_from(["", "models"]),
        "workspace": st.sampled_from(["", "0123456789abcdef"]),
        "revision": st.integers(1, 10_000),
        "monitors": st.booleans(),
        "outside": st.booleans(),
    }
    return st.builds(Deployable, **(made | {key: st.just(value) for key, value in changed.items()}))


def restricted_faults(pod: dict[str, Any]) -> Iterator[str]:
    """What the restricted Pod Security standard would refuse, by its own list of rules."""
    yield from _faults_of_pod(pod)
    context = pod.get("securityContext", {})
    for each in [*pod.get("initContainers", []), *pod.get("containers", [])]:
        yield from _faults_of_rights(each.get("securityContext", {}))
        yield from _faults_of_user({**context, **each.get("securityContext", {})})
        yield from _faults_of_ports(each)
    if context.get("runAsUser") == 0:
        yield "is root"


def _faults_of_rights(own: dict[str, Any]) -> Iterator[str]:
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may escalate"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"]:
        yield "capabilities are not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if own.get("procMount", "Default") != "Default":
        yield "another view of /proc"


def _faults_of_user(merged: dict[str, Any]) -> Iterator[str]:
    if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
        yield "may be root"
    if merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccomp"


def _faults_of_ports(container: dict[str, Any]) -> Iterator[str]:
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "a port of the host"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if "host" in container.get(probe, {}).get("httpGet", {}):
            yield "a probe of another host"


_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}
_SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ping_group_range"}


def _faults_of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= _VOLUMES:
            yield f"a volume {volume}"
    for sysctl in pod.get("securityContext", {}).get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"the sysctl {sysctl}"
