"""What `--set` takes for Kubernetes, and what it refuses with a way out."""

from __future__ import annotations

import pytest

from scoring.errors import UsageError
from serve.targets.kubernetes.settings import parse


@pytest.mark.parametrize(
    ("given", "words", "where"),
    [
        ({"replica": "2"}, "Did you mean 'replicas'", "replica"),
        ({"replicas": "0"}, "replicas", "replicas"),
        ({"image": "registry.example.org/iris:1"}, "by a tag", "image"),
        ({"image": "registry.example.org/iris"}, "by a tag", "image"),
        ({"image": "UPPER/x@sha256:1"}, "", "image"),
        ({"registry": "registry.example.org/iris:1"}, "by their digest", "registry"),
        (
            {"image": f"r.io/x@sha256:{'a' * 64}", "registry": "r.io/x"},
            "not both",
            "image",
        ),
        ({"api_keys": "/etc/keys.json"}, "file of this machine", "api_keys"),
        ({"server.tls_cert": "/c", "server.tls_key": "/k"}, "file of this machine", "tls_cert"),
        (
            {"env.FIELDPOST_SERVER_PORT": "80"},
            "port in a pod is fixed",
            "env.FIELDPOST_SERVER_PORT",
        ),
        ({"client_ca_secret": "ca"}, "needs 'tls_secret'", "client_ca_secret"),
        ({"env.A B": "c"}, "cannot hold the variable", "env.A B"),
        ({"max_replicas": "1"}, "less than 'replicas'", "max_replicas"),
        ({"scale_to_zero": "true"}, "Only KEDA", "scale_to_zero"),
        ({"scaler": "keda"}, "most pods", ""),
        ({"scaler": "keda", "max_replicas": "9", "target_in_flight": "4"}, "where it is", None),
        (
            {
                "scaler": "keda",
                "max_replicas": "9",
                "scale_to_zero": "true",
                "prometheus": "http://p",
            },
            "what wakes",
            "scale_query",
        ),
        ({"cpu": "two"}, "cannot be 'two'", "cpu"),
        ({"cpu": "0.0001"}, "cannot be", "cpu"),
        ({"cpu": "0"}, "cannot be", "cpu"),
        ({"cpu": "2", "cpu_limit": "1"}, "less than 'cpu'", "cpu_limit"),
        ({"memory": "12"}, "at least 64Mi", "memory"),
        ({"memory": "2Gi", "memory_limit": "1Gi"}, "less than 'memory'", "memory_limit"),
        ({"tmp": "-1"}, "tmp", "tmp"),
        ({"gpu_resource": "gpu"}, "gpu_resource", "gpu_resource"),
        ({"user": "0"}, "cannot be '0'", "user"),
        ({"user": "root"}, "cannot be 'root'", "user"),
        ({"user": "9999999999"}, "cannot be", "user"),
        ({"node_selector": "a"}, "does not take", "node_selector"),
        ({"node_selector": "a=b c"}, "does not take", "node_selector"),
        ({"tolerations": "a:Never"}, "does not take", "tolerations"),
        ({"volumes": "claim"}, "does not take", "volumes"),
        ({"volumes": "a:/x,b:/x"}, "does not take", "volumes"),
        ({"volumes": "a:/x/,b:/x"}, "does not take", "volumes"),
        ({"volumes": "a:/x,b://x"}, "does not take", "volumes"),
        ({"volumes": "a:/proc/x"}, "does not take", "volumes"),
        ({"volumes": "Claim:/x"}, "does not take", "volumes"),
        ({"jobs_dir": "/jobs"}, "cannot write to /jobs", "jobs_dir"),
        ({"jobs_dir": "/data/jobs", "volumes": "a:/data:ro"}, "cannot write", "jobs_dir"),
        ({"jobs_dir": "/database", "volumes": "a:/data"}, "cannot write", "jobs_dir"),
        ({"access_log": "/var/log/x"}, "cannot write", "access_log"),
        ({"memory": "10Ei"}, "less than 1Ei", "memory"),
        ({"env.A": "x" * 600_000, "env.B": "é" * 300_000}, "a Secret takes 1024 KiB", "env"),
        ({"labels": "fieldpost.dev/model=x"}, "sets itself", "labels"),
        ({"labels": "app.kubernetes.io/name=x"}, "sets itself", "labels"),
        ({"hostname": "iris.example.org"}, "needs something that answers", "hostname"),
        ({"hostname": "https://x", "gateway": "g"}, "does not take", "hostname"),
        ({"gateway": "g", "ingress_class": "n"}, "not both", "gateway"),
        ({"gateway": "a/b/c"}, "does not take", "gateway"),
        ({"path": "iris", "gateway": "g"}, "cannot be 'iris'", "path"),
        ({"path": "/a//b", "gateway": "g"}, "cannot be", "path"),
        ({"path": "/a/../b", "gateway": "g"}, "cannot be", "path"),
        ({"path": "/a/..", "gateway": "g"}, "cannot be", "path"),
        ({"path": "/a%2fb", "gateway": "g"}, "cannot be", "path"),
        ({"path": "/a%", "gateway": "g"}, "cannot be", "path"),
        ({"path": "/a b", "gateway": "g"}, "cannot be", "path"),
        ({"path": "/iris", "ingress_class": "n"}, "hands paths on as they are", "path"),
        ({"hostname": "10.0.0.1", "gateway": "g"}, "does not take", "hostname"),
        ({"hostname": "a..b", "gateway": "g"}, "does not take", "hostname"),
        ({"namespace": "a.b"}, "does not take", "namespace"),
        ({"allow_from": "a.b"}, "does not take", "allow_from"),
        ({"volumes": "a:/tmp"}, "does not take", "volumes"),
        ({"volumes": "a:/opt"}, "does not take", "volumes"),
        ({"volumes": "a:/etc/fieldpost/keys"}, "does not take", "volumes"),
        ({"volumes": "a:/"}, "does not take", "volumes"),
        ({"volumes": "a:x"}, "does not take", "volumes"),
        ({"volumes": "a:/x/../opt/fieldpost"}, "does not take", "volumes"),
        ({"labels": "a..b/c=d"}, "does not take", "labels"),
        ({"env...": "c"}, "cannot hold the variable", "env..."),
        ({"ingress_tls_secret": "x"}, "needs 'ingress_class'", "ingress_tls_secret"),
        ({"allow_from": "Ns"}, "does not take", "allow_from"),
        ({"tls_secret": "Not_A_Name"}, "does not take", "tls_secret"),
        ({"namespace": "a/b"}, "does not take", "namespace"),
        ({"leave_s": "601"}, "leave_s", "leave_s"),
        ({"server.drain_idle_s": "soon"}, "drain_idle_s", "drain_idle_s"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    given: dict[str, str], words: str, where: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(given)
    assert words in caught.value.message
    assert where is None or caught.value.where == where


def test_the_defaults_are_those_of_a_deployment_that_survives_a_node() -> None:
    settings = parse({})
    assert (settings.replicas, settings.service_port, settings.scales) == (2, 80, False)
    assert (settings.tls, settings.host) == (False, "0.0.0.0")


def test_pods_write_to_volumes_and_to_what_they_have_by_themselves() -> None:
    parse({"jobs_dir": "/data/jobs", "volumes": "a:/data", "access_log": "-"})
    parse({"jobs_dir": "/tmp/jobs", "access_log": "/dev/stdout", "env.A": "x" * (1 << 20)})


def test_values_come_as_texts_or_as_they_are() -> None:
    assert parse({"replicas": "3", "scale_to_zero": "false"}).replicas == 3
    assert parse({"replicas": 3}).replicas == 3
    assert parse({"tls_secret": "cert"}).service_port == 443
    assert parse({"tls_secret": "cert", "port": "8443"}).service_port == 8443


def test_secrets_are_in_no_message() -> None:
    with pytest.raises(UsageError) as caught:
        parse({"env.BAD NAME": "open sesame"})
    assert "open sesame" not in f"{caught.value} {caught.value.hint}"
