"""The objects, part by part: what each setting and each fact of the package changes."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from scoring.errors import UsageError
from serve.server.settings import from_environment
from serve.targets.kubernetes import labels
from serve.targets.kubernetes.deployable import Deployable
from serve.targets.kubernetes.objects import render
from serve.targets.kubernetes.objects.resources import memory_bytes
from serve.targets.kubernetes.settings import parse
from tests.support.kubernetes_objects import DIGEST, FACTS, IMAGE, by_kind, deployable

PLAIN = {
    *("ServiceAccount", "ConfigMap", "NetworkPolicy", "Service", "Deployment"),
    *("PodDisruptionBudget", "ServiceMonitor"),
}


def kinds(**settings: Any) -> dict[str, dict[str, Any]]:
    return by_kind(render(deployable(**settings)))


def pod(**settings: Any) -> dict[str, Any]:
    spec: dict[str, Any] = kinds(**settings)["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(**settings: Any) -> dict[str, Any]:
    (found,) = pod(**settings)["containers"]
    assert isinstance(found, dict)
    return found


def test_what_there_is_depends_on_what_was_asked_for() -> None:
    assert set(kinds()) == PLAIN
    assert set(kinds(monitor="off")) == PLAIN - {"ServiceMonitor"}
    assert set(kinds(service_account="own")) == PLAIN - {"ServiceAccount"}
    assert set(kinds(env__TOKEN="x")) == PLAIN | {"Secret"}
    assert set(kinds(max_replicas=9)) == PLAIN | {"HorizontalPodAutoscaler"}
    assert set(kinds(max_replicas=9, scaler="keda")) == PLAIN | {"ScaledObject"}
    assert set(kinds(gateway="g")) == PLAIN | {"HTTPRoute"}
    assert set(kinds(ingress_class="nginx")) == PLAIN | {"Ingress"}


def test_a_service_monitor_is_for_clusters_that_know_them() -> None:
    of = deployable()
    unknown = Deployable(name="iris", image=IMAGE, package=FACTS, settings=of.settings)
    assert "ServiceMonitor" not in by_kind(render(unknown))
    asked = Deployable(name="iris", image=IMAGE, package=FACTS, settings=parse({"monitor": "on"}))
    assert "ServiceMonitor" in by_kind(render(asked))


def test_every_object_says_what_it_belongs_to() -> None:
    for each in kinds(labels="team=forecast").values():
        found = each["metadata"]["labels"]
        assert found[labels.DEPLOYMENT] == "iris"
        assert (found[labels.MODEL], found[labels.VERSION]) == ("iris", "3")
        assert found[labels.REVISION] == "4"
        assert found[labels.PACKAGE] == "ab" * 31 + "a"
        assert found[labels.WORKSPACE] == "0123456789abcdef"
        assert found[labels.APP_MANAGER] == "fieldpost"
        assert found["team"] == "forecast"
        assert each["metadata"]["annotations"][labels.PACKAGE] == DIGEST
        assert each["metadata"]["namespace"] == "models"


def test_what_selects_pods_is_the_same_for_every_revision() -> None:
    of = deployable()
    later = Deployable(
        name="iris", image=IMAGE, package=FACTS, settings=parse({"replicas": 9}), revision=99
    )
    one, other = by_kind(render(of)), by_kind(render(later))
    for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"):
        name = "podSelector" if kind == "NetworkPolicy" else "selector"
        assert one[kind]["spec"][name] == other[kind]["spec"][name]


def test_images_are_named_by_digest_alone() -> None:
    tagged = IMAGE.replace("@", ":latest@")
    of = Deployable(name="iris", image=tagged, package=FACTS, settings=parse({}))
    (found,) = by_kind(render(of))["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert found["image"] == IMAGE
    with pytest.raises(UsageError, match="not named by its digest"):
        Deployable(name="iris", image="r.io/x:1", package=FACTS, settings=parse({}))
    with pytest.raises(UsageError, match="not named by its digest"):
        Deployable(name="iris", image="r.io/x", package=FACTS, settings=parse({}))


def test_the_port_of_a_registry_is_no_tag() -> None:
    image = f"localhost:5000/x@{DIGEST}"
    of = Deployable(name="iris", image=image, package=FACTS, settings=parse({}))
    assert (of.repository, of.reference) == ("localhost:5000/x", image)


def test_probes_ask_the_servers_own_routes() -> None:
    found = container(ready_timeout_s=61)
    assert found["startupProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert found["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert found["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    startup = found["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 61
    assert {found[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("startup", "liveness")} == {
        "HTTP"
    }


def test_probes_speak_tls_where_the_server_does_and_need_no_certificate() -> None:
    assert container(tls_secret="c")["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"
    found = container(tls_secret="c", client_ca_secret="a")
    for kind in ("startup", "readiness", "liveness"):
        assert found[f"{kind}Probe"]["tcpSocket"] == {"port": 5001}
        assert "httpGet" not in found[f"{kind}Probe"]


def test_a_hanging_server_may_be_left_alone() -> None:
    assert "livenessProbe" not in container(liveness="false")


def test_the_grace_covers_leaving_and_the_drain() -> None:
    spec = pod(leave_s=7, drain_timeout_s=12.5)
    assert spec["terminationGracePeriodSeconds"] == 7 + 13 + 5
    (found,) = spec["containers"]
    assert found["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    assert "lifecycle" not in container(leave_s=0)


def test_the_server_takes_what_the_config_map_says() -> None:
    of = deployable(
        drain_timeout_s=12, max_body_bytes=1024, server__max_depth=9, rate_limit=5, workers=3
    )
    data = by_kind(render(of))["ConfigMap"]["data"]
    assert all(isinstance(text, str) for text in data.values())
    found = from_environment(data)
    assert (found.drain_timeout_s, found.max_body_bytes, found.max_depth) == (12.0, 1024, 9)
    assert (found.rate_limit, found.workers, found.host) == (5.0, 3, "0.0.0.0")
    assert "FIELDPOST_SERVER_PORT" not in data


def test_another_setting_is_another_config_map_and_so_another_pod() -> None:
    def reference(**settings: Any) -> tuple[str, str]:
        found = kinds(**settings)
        (each,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
        return found["ConfigMap"]["metadata"]["name"], each["envFrom"][0]["configMapRef"]["name"]

    assert len({*reference(), *reference(rate_limit=1), *reference(rate_limit=2)}) == 3


def test_values_of_the_environment_are_in_the_secret_alone() -> None:
    found = kinds(env__TOKEN="open sesame", env__FIELDPOST_SERVER_RATE_LIMIT="9", rate_limit=5)
    secret = found.pop("Secret")
    assert base64.b64decode(secret["data"]["TOKEN"]) == b"open sesame"
    assert "open sesame" not in str(found)
    assert b"open sesame".hex() not in str(found)
    # The user's own goes before the setting: it is in one of them only.
    assert "FIELDPOST_SERVER_RATE_LIMIT" not in found["ConfigMap"]["data"]
    sources = container(env__TOKEN="x", env_secret="a,b", env_config="c")["envFrom"]
    assert [next(iter(each)) for each in sources] == [
        *("configMapRef", "configMapRef", "secretRef", "secretRef", "secretRef")
    ]
    assert sources[-1]["secretRef"]["name"] == secret["metadata"]["name"] == "iris-env-r4"


def test_a_deployable_does_not_show_secrets() -> None:
    assert "open sesame" not in repr(deployable(env__TOKEN="open sesame"))


def test_keys_and_certificates_are_mounted_from_secrets() -> None:
    settings = {"api_keys_secret": "keys", "tls_secret": "cert", "client_ca_secret": "clients"}
    data = kinds(**settings)["ConfigMap"]["data"]
    spec = pod(**settings)
    folders = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    assert data["FIELDPOST_SERVER_API_KEYS"] == f"{folders['api-keys']}/keys.json"
    assert data["FIELDPOST_SERVER_TLS_CERT"] == f"{folders['tls']}/tls.crt"
    assert data["FIELDPOST_SERVER_TLS_KEY"] == f"{folders['tls']}/tls.key"
    assert data["FIELDPOST_SERVER_TLS_CLIENT_CA"] == f"{folders['client-ca']}/ca.crt"
    secrets = {each["name"]: each["secret"] for each in spec["volumes"] if "secret" in each}
    assert {each["secretName"] for each in secrets.values()} == {"keys", "cert", "clients"}
    assert {each["defaultMode"] for each in secrets.values()} == {0o440}
    assert spec["securityContext"]["fsGroup"] == 65532
    assert not any("subPath" in each for each in spec["containers"][0]["volumeMounts"])


def test_memory_follows_the_package_unless_it_is_set() -> None:
    small = container()["resources"]
    assert small["requests"] == {"cpu": "500m", "memory": "192Mi"}
    assert small["limits"] == {"memory": "448Mi"}
    large = deployable(facts={"model_bytes": 4 << 30, "environment_bytes": 3 << 30})
    found = pod_of(large)["resources"]
    assert found["requests"]["memory"] == f"{(memory_bytes(large.package)) >> 20}Mi"
    assert memory_bytes(large.package) > 3 * (4 << 30)
    set_by_hand = container(memory="1Gi", memory_limit="1Gi", cpu="2", cpu_limit="4")["resources"]
    assert set_by_hand == {
        "requests": {"cpu": "2", "memory": "1Gi"},
        "limits": {"cpu": "4", "memory": "1Gi"},
    }
    tight = container(memory_limit="128Mi")["resources"]
    assert tight["requests"]["memory"] == "128Mi"
    assert container(workers=2)["resources"]["requests"]["memory"] == "384Mi"


def pod_of(of: Deployable) -> dict[str, Any]:
    (found,) = by_kind(render(of))["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_gpus_are_promised_and_limited_alike() -> None:
    found = container(gpus=2, gpu_resource="amd.com/gpu")["resources"]
    assert found["requests"]["amd.com/gpu"] == found["limits"]["amd.com/gpu"] == "2"


def test_pods_go_only_where_the_image_runs() -> None:
    spec = pod(node_selector="pool=models", tolerations="gpu:NoSchedule,a=b")
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "models"}
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (expression,) = terms["nodeSelectorTerms"][0]["matchExpressions"]
    assert expression == {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}
    assert spec["tolerations"] == [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "a", "operator": "Equal", "value": "b"},
    ]
    both = deployable(facts={"platforms": ("linux/amd64", "linux/arm64")})
    found = by_kind(render(both))["Deployment"]["spec"]["template"]["spec"]["affinity"]
    assert "['amd64', 'arm64']" in str(found)


def test_pods_spread_over_nodes_and_zones() -> None:
    keys = [each["topologyKey"] for each in pod()["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    hard = pod(spread="hard")["topologySpreadConstraints"]
    assert [each["whenUnsatisfiable"] for each in hard] == ["DoNotSchedule", "ScheduleAnyway"]
    assert "topologySpreadConstraints" not in pod(spread="off")


def test_a_scaler_has_the_number_of_pods_to_itself() -> None:
    assert kinds(replicas=3)["Deployment"]["spec"]["replicas"] == 3
    found = kinds(replicas=3, max_replicas=30)
    assert "replicas" not in found["Deployment"]["spec"]
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 30)
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
    (metric,) = kinds(max_replicas=9, target_in_flight=1.5)["HorizontalPodAutoscaler"]["spec"][
        "metrics"
    ]
    assert metric["pods"]["metric"]["name"] == "fieldpost_in_flight"
    assert metric["pods"]["target"]["averageValue"] == "1500m"


def test_keda_takes_the_last_pod_away_where_it_may() -> None:
    found = kinds(
        max_replicas=9,
        scaler="keda",
        prometheus="http://prometheus:9090",
        scale_query="sum(rate(gateway_requests[1m]))",
        scale_threshold=1000000,
        scale_to_zero="true",
        scaler_auth="token",
    )["ScaledObject"]["spec"]
    assert (found["minReplicaCount"], found["maxReplicaCount"]) == (0, 9)
    (trigger,) = found["triggers"]
    assert trigger["metadata"]["threshold"] == "1000000"
    assert trigger["authenticationRef"] == {"name": "token"}
    asked = kinds(max_replicas=9, scaler="keda", prometheus="http://p", target_in_flight=4)
    (trigger,) = asked["ScaledObject"]["spec"]["triggers"]
    assert trigger["metadata"]["query"] == (
        'sum(fieldpost_in_flight{namespace="models",pod=~"iris-[a-z0-9]+-[a-z0-9]+"})'
    )


def test_ways_in_lead_to_the_service() -> None:
    route = kinds(gateway="infra/public", hostname="a.example.org", path="/iris")["HTTPRoute"]
    assert route["spec"]["parentRefs"][0]["namespace"] == "infra"
    (rule,) = route["spec"]["rules"]
    assert rule["backendRefs"][0]["name"] == "iris"
    assert rule["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"] == "/"
    ingress = kinds(ingress_class="nginx", hostname="a.example.org", ingress_tls_secret="c")
    spec = ingress["Ingress"]["spec"]
    assert spec["rules"][0]["host"] == "a.example.org"
    assert spec["tls"] == [{"hosts": ["a.example.org"], "secretName": "c"}]
    service = kinds(tls_secret="c")["Service"]["spec"]
    assert service["ports"][0] | {"protocol": "TCP"} == {
        "name": "https",
        "appProtocol": "https",
        "port": 443,
        "protocol": "TCP",
        "targetPort": "http",
    }


@pytest.mark.parametrize(
    ("settings", "script", "egress"),
    [
        ({}, False, []),
        ({}, True, [{}]),
        ({"env__A": "b"}, False, [{}]),
        ({"traces": "http://collector:4318"}, False, [{}]),
        ({"server__oidc_issuer": "https://i", "server__oidc_audience": "a"}, False, [{}]),
        ({"egress": "none"}, True, []),
        ({"egress": "all"}, False, [{}]),
    ],
)
def test_pods_may_ask_what_their_package_needs(
    settings: dict[str, Any], script: bool, egress: list[Any]
) -> None:
    of = deployable(facts={"script": script}, **settings)
    assert by_kind(render(of))["NetworkPolicy"]["spec"]["egress"] == egress


def test_who_may_ask_is_said_by_namespace() -> None:
    def senders(**settings: Any) -> Any:
        (rule,) = kinds(**settings)["NetworkPolicy"]["spec"]["ingress"]
        assert rule["ports"] == [{"port": 5001, "protocol": "TCP"}]
        return rule.get("from")

    assert senders() is None
    assert senders(allow_from="namespace") == [{"podSelector": {}}]
    (other,) = senders(allow_from="web,jobs")
    assert other["namespaceSelector"]["matchExpressions"][0]["values"] == ["jobs", "web"]
    dns = kinds(egress="dns")["NetworkPolicy"]["spec"]["egress"]
    assert [port["port"] for port in dns[0]["ports"]] == [53, 53]


def test_metrics_are_asked_with_a_key_and_over_tls() -> None:
    monitor = kinds(tls_secret="c", monitor_key_secret="k", monitor_labels="release=prom")
    found = monitor["ServiceMonitor"]
    assert found["metadata"]["labels"]["release"] == "prom"
    (endpoint,) = found["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "k", "key": "key"}
    assert endpoint["tlsConfig"]["serverName"] == "iris.models.svc"
    assert found["spec"]["selector"]["matchLabels"].items() <= (
        monitor["Service"]["metadata"]["labels"].items()
    )


def test_the_cluster_may_choose_the_user() -> None:
    context = pod(user="image")["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
