from __future__ import annotations

import json
import os
import ssl
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import yaml

from scoring.errors import TargetError, UsageError
from serve.targets.kubernetes.access import IN_CLUSTER, find_access
from serve.targets.kubernetes.client import PATIENCE_S, Cluster
from serve.targets.kubernetes.login import Plugin, TokenFile, login_of
from tests.support.certificates import Authority, api_tls
from tests.support.kubernetes_double.server import KubernetesDouble

if TYPE_CHECKING:
    from pathlib import Path


def _config(path: Path, name: str, *, cluster: dict[str, str] | None = None, **user: Any) -> Path:
    server = {"server": f"https://{name}:6443"}
    document = {
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster or server}],
        "users": [{"name": name, "user": user}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}
        ],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def _environment(*paths: Path) -> dict[str, str]:
    return {"KUBECONFIG": os.pathsep.join(map(str, paths))}


def test_the_current_context_counts(tmp_path: Path) -> None:
    found = find_access(environment=_environment(_config(tmp_path / "a", "one")))
    assert (found.context, found.server, found.namespace) == (
        "one",
        "https://one:6443",
        "ns-one",
    )
    assert "'one'" in found.where


def test_several_files_are_one_and_the_first_counts(tmp_path: Path) -> None:
    both = _environment(
        tmp_path / "missing", _config(tmp_path / "a", "one"), _config(tmp_path / "b", "two")
    )
    assert find_access(environment=both).context == "one"
    assert find_access("two", environment=both).server == "https://two:6443"


def test_a_home_folder_has_the_usual_file(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    _config(tmp_path / ".kube/config", "one")
    assert find_access(environment={"HOME": str(tmp_path)}).context == "one"


def test_files_are_beside_the_file_that_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    path = _config(folder / "a", "one", tokenFile="token")
    found = find_access(environment=_environment(path))
    assert found.config.user is not None
    assert found.config.user.token_file == str(folder / "token")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No cluster is configured"),
        ("[1, 2]", "no mapping"),
        ("a: [", "is no YAML, line"),
        ("clusters: [{}]", "has no name"),
        ("contexts: [{name: x, context: {cluster: y}}]", "no current context"),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: y}}]}",
            "names the cluster 'y', which the kubeconfig lacks",
        ),
        (
            (
                "{current-context: x, contexts: [{name: x, context: {cluster: y, user: z}}],"
                " clusters: [{name: y, cluster: {server: 'http://y'}}]}"
            ),
            "names the user 'z'",
        ),
        (
            (
                "{current-context: x, contexts: [{name: x, context: {cluster: y}}],"
                " clusters: [{name: y, cluster: {server: 7}}]}"
            ),
            "is not valid",
        ),
    ],
)
def test_files_that_lead_nowhere(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises((TargetError, UsageError), match=words):
        find_access(environment=_environment(path))


def test_a_context_without_a_user_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        "{current-context: x, contexts: [{name: x, context: {cluster: y}}],"
        " clusters: [{name: y, cluster: {server: 'http://y', proxy-url: 'http://p:1'}}]}"
    )
    found = find_access(environment=_environment(path))
    assert (found.namespace, found.proxy) == ("default", "http://p:1")
    assert login_of(found) is None


def _account(tmp_path: Path) -> tuple[dict[str, str], str]:
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("abc\n")
    (folder / "namespace").write_text("team\n")
    (folder / "ca.crt").write_text("")
    return {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, str(folder)


def test_a_pod_speaks_with_its_own_cluster(tmp_path: Path) -> None:
    variables, folder = _account(tmp_path)
    variables |= {"HOME": str(tmp_path)}
    found = find_access(environment=variables, service_account=folder)
    assert (found.context, found.server, found.namespace) == (
        IN_CLUSTER,
        "https://[fd00::1]:443",
        "team",
    )
    assert found.where == "The cluster around this pod"


def test_a_kubeconfig_comes_before_the_pod_s_cluster(tmp_path: Path) -> None:
    variables, folder = _account(tmp_path)
    variables |= _environment(_config(tmp_path / "a", "one"))
    assert find_access(environment=variables, service_account=folder).context == "one"
    own = find_access(IN_CLUSTER, environment=variables, service_account=folder)
    assert own.context == IN_CLUSTER


def test_nothing_of_a_login_is_shown(tmp_path: Path) -> None:
    found = find_access(environment=_environment(_config(tmp_path / "a", "one", token="s3cret")))
    assert "s3cret" not in repr(found)


def _bearer(login: httpx2.Auth | None, *statuses: int) -> list[str]:
    """The tokens that are shown, to a server that answers so."""
    assert login is not None
    request = httpx2.Request("GET", "https://one/version")
    flow, shown = login.sync_auth_flow(request), []
    current = next(flow)
    for status in statuses:
        shown.append(current.headers["Authorization"])
        try:
            current = flow.send(httpx2.Response(status, request=request))
        except StopIteration:
            return shown
    return [*shown, current.headers["Authorization"]]


def test_a_token_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    login = TokenFile(str(path))
    assert _bearer(login, 200) == ["Bearer one"]
    path.write_text("two\n")
    assert _bearer(login, 200) == ["Bearer two"]
    path.unlink()
    with pytest.raises(TargetError, match="cannot be read"):
        _bearer(login, 200)


def _plugin(tmp_path: Path, body: str, **given: Any) -> httpx2.Auth:
    script = tmp_path / "login"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", **given}
    path = _config(tmp_path / "config", "one", exec=plugin)
    found = find_access(environment=_environment(path))
    login = login_of(found)
    assert isinstance(login, Plugin)
    return login


def _credential(**status: str) -> str:
    return json.dumps({"kind": "ExecCredential", "status": status})


def test_a_plugin_is_asked_once_and_again_after_401(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    body = f"echo x >> {counter}; echo '{_credential(token='abc')}'"
    login = _plugin(tmp_path, body)
    assert _bearer(login, 200) == ["Bearer abc"]
    assert _bearer(login, 200) == ["Bearer abc"]
    assert counter.read_text() == "x\n"
    assert _bearer(login, 401, 200) == ["Bearer abc", "Bearer abc"]
    assert counter.read_text() == "x\nx\n"


def test_a_token_that_is_over_is_not_shown(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    told = _credential(token="abc", expirationTimestamp="2020-01-01T00:00:00Z")
    login = _plugin(tmp_path, f"echo x >> {counter}; echo '{told}'")
    _bearer(login, 200)
    _bearer(login, 200)
    assert counter.read_text() == "x\nx\n"


def test_a_plugin_is_told_what_it_is_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    body = f"echo \"$KUBERNETES_EXEC_INFO $WHO $1\" > {out}; echo '{_credential(token='a')}'"
    env = [{"name": "WHO", "value": "me"}]
    _bearer(_plugin(tmp_path, body, env=env, args=["get-token"]), 200)
    assert "https://one:6443" not in out.read_text()
    assert out.read_text().endswith("me get-token\n")
    _bearer(_plugin(tmp_path, body, env=env, provideClusterInfo=True), 200)
    spec = json.loads(out.read_text().rpartition("}")[0] + "}")["spec"]
    assert spec == {"interactive": False, "cluster": {"server": "https://one:6443"}}


def test_a_plugin_that_needs_a_person_is_not_asked_without_one(tmp_path: Path) -> None:
    body = f"echo '{_credential(token='a')}'"
    with pytest.raises(TargetError, match="asks at a terminal"):
        _bearer(_plugin(tmp_path, body, interactiveMode="Always"), 200)
    assert _bearer(_plugin(tmp_path, body, interactiveMode="Never"), 200) == ["Bearer a"]


def test_a_plugin_is_asked_once_by_all_threads(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    login = _plugin(tmp_path, f"echo x >> {counter}; sleep 0.2; echo '{_credential(token='a')}'")
    threads = [threading.Thread(target=_bearer, args=(login, 200)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert counter.read_text() == "x\n"


def test_a_plugin_may_give_a_certificate(tmp_path: Path) -> None:
    tls = api_tls(tmp_path)
    files = {"clientCertificateData": "me.pem", "clientKeyData": "me.key"}
    status = {key: (tmp_path / name).read_text() for key, name in files.items()}
    told = tmp_path / "told.json"
    told.write_text(_credential(**status))
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "cat"}
    with KubernetesDouble(tls) as double:
        path = _config(
            tmp_path / "config",
            "one",
            exec={**plugin, "args": [str(told)]},
            cluster={"server": double.url, "certificate-authority": "ca.pem"},
        )
        access = find_access(environment=_environment(path))
        with Cluster(access) as cluster:
            assert cluster.list("Pod").items == []
        told.write_text(_credential(clientCertificateData="nonsense", clientKeyData="x"))
        with Cluster(access) as cluster, pytest.raises(TargetError, match="cannot be used"):
            cluster.list("Pod")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo session over >&2; exit 3", "ended with 3"),
        ("echo nonsense", "gave no credential"),
        ("echo '{}'", "gave no token"),
    ],
)
def test_a_plugin_that_fails(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(TargetError, match=words) as caught:
        _bearer(_plugin(tmp_path, body), 200)
    assert "exit" not in body or caught.value.detail == "session over"


def test_a_plugin_that_is_not_installed(tmp_path: Path) -> None:
    plugin = {"apiVersion": "v1", "command": "no-such-login", "installHint": "Get it at x."}
    path = _config(tmp_path / "config", "one", exec=plugin)
    found = find_access(environment=_environment(path))
    with pytest.raises(TargetError, match="is not installed") as caught:
        _bearer(login_of(found), 200)
    assert caught.value.hint == "Get it at x."


def test_what_kubernetes_gave_up_is_told(tmp_path: Path) -> None:
    given: dict[str, Any] = {"auth-provider": {"name": "gcp"}}
    path = _config(tmp_path / "config", "one", **given)
    found = find_access(environment=_environment(path))
    with pytest.raises(TargetError, match="auth-provider"):
        login_of(found)


def test_a_login_may_act_as_another(tmp_path: Path) -> None:
    given: dict[str, Any] = {"as": "bot", "as-groups": ["x", "y"], "as-uid": 7}
    path = _config(tmp_path / "a", "one", **given)
    found = find_access(environment=_environment(path))
    assert found.headers == (
        ("Impersonate-User", "bot"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "x"),
        ("Impersonate-Group", "y"),
    )


@pytest.mark.parametrize("proxy", ["no-scheme:3128", "ftp://proxy:21"])
def test_a_proxy_that_cannot_be_used_is_named(tmp_path: Path, proxy: str) -> None:
    cluster = {"server": "https://one:6443", "proxy-url": proxy}
    path = _config(tmp_path / "config", "one", cluster=cluster)
    with pytest.raises(TargetError, match="proxy of the context 'one'") as caught:
        Cluster(find_access(environment=_environment(path)))
    assert "HTTPS_PROXY" in caught.value.hint


def test_a_certificate_without_its_key_is_named(tmp_path: Path) -> None:
    Authority().issue(tmp_path, "me")
    given: dict[str, Any] = {"client-certificate": "me.pem"}
    path = _config(tmp_path / "config", "one", **given)
    with pytest.raises(TargetError, match="certificates of the context 'one'"):
        Cluster(find_access(environment=_environment(path)))


def test_a_cluster_that_is_not_trusted_is_not_asked_again(tmp_path: Path) -> None:
    authority = Authority()
    ca = authority.write(tmp_path / "ca.pem")
    Authority().write(tmp_path / "other.pem")
    authority.issue(tmp_path, "api")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    tls.load_cert_chain(tmp_path / "api.pem", tmp_path / "api.key")
    with KubernetesDouble(tls) as double:
        cluster = {"server": double.url, "certificate-authority": "other.pem"}
        path = _config(tmp_path / "config", "one", cluster=cluster, token="x")
        began = time.monotonic()
        with (
            Cluster(find_access(environment=_environment(path))) as found,
            pytest.raises(TargetError, match="not trusted") as caught,
        ):
            found.version()
        assert time.monotonic() - began < PATIENCE_S
    assert "certificate-authority" in caught.value.hint
