"""Where engines are looked for, by what a user's environment and files say."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from scoring.errors import UsageError
from serve.engines import places
from serve.engines.places import Place, Tls


def hosts(found: list[Place]) -> list[str]:
    return [each.host for each in found]


def context(home: Path, name: str, host: str, *, tls: bool = False, skip: bool = False) -> None:
    key = hashlib.sha256(name.encode()).hexdigest()
    folder = home / ".docker/contexts/meta" / key
    folder.mkdir(parents=True)
    endpoint = {"docker": {"Host": host, "SkipTLSVerify": skip}}
    (folder / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": endpoint}))
    if tls:
        certificates = home / ".docker/contexts/tls" / key / "docker"
        certificates.mkdir(parents=True)
        for each in ("ca", "cert", "key"):
            (certificates / f"{each}.pem").write_text("pem")


def test_docker_host_is_believed_alone(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "DOCKER_HOST": "unix:///x/docker.sock"}
    context(tmp_path, "prod", "tcp://prod:2376")
    (tmp_path / ".docker/config.json").write_text('{"currentContext": "prod"}')
    assert places.places("docker", environ) == [Place("unix:///x/docker.sock", "DOCKER_HOST")]


def test_the_context_in_use(tmp_path: Path) -> None:
    context(tmp_path, "prod", "tcp://prod:2376", tls=True, skip=True)
    (tmp_path / ".docker/config.json").write_text('{"currentContext": "prod"}')
    (found,) = places.places("docker", {"HOME": str(tmp_path)})
    assert (found.host, found.source) == ("tcp://prod:2376", "the context 'prod'")
    assert found.tls is not None
    assert not found.tls.verify
    assert found.tls.cert.endswith("/docker/cert.pem")


def test_a_context_may_be_named_by_a_variable(tmp_path: Path) -> None:
    context(tmp_path, "far", "ssh://me@far")
    environ = {"HOME": str(tmp_path), "DOCKER_CONTEXT": "far"}
    assert hosts(places.places("docker", environ)) == ["ssh://me@far"]
    environ["DOCKER_CONTEXT"] = "default"
    assert "unix:///var/run/docker.sock" in hosts(places.places("docker", environ))


def test_a_context_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'gone' is in use, and there is no such context") as error:
        places.places("docker", {"HOME": str(tmp_path), "DOCKER_CONTEXT": "gone"})
    assert "docker context ls" in error.value.hint


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        places.places("docker", {"HOME": str(tmp_path)})


def test_customary_sockets_are_only_guesses(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"}
    found = places.places("docker", environ)
    assert hosts(found)[:2] == ["unix:///var/run/docker.sock", "unix:///run/user/7/docker.sock"]
    assert f"unix://{tmp_path}/.docker/run/docker.sock" in hosts(found)
    assert not any(each.sure for each in found)
    podman = hosts(places.places("podman", environ))
    own, root = "unix:///run/user/7/podman/podman.sock", "unix:///run/podman/podman.sock"
    assert podman == ([root, own] if os.geteuid() == 0 else [own, root])


def test_tls_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("pem")
    environ = {
        "DOCKER_HOST": "tcp://there:2376",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(tmp_path),
    }
    (found,) = places.places("docker", environ)
    assert found.tls == Tls(ca=str(tmp_path / "ca.pem"), verify=True)
    del environ["DOCKER_TLS_VERIFY"], environ["DOCKER_CERT_PATH"]
    assert places.places("docker", environ)[0].tls is None


@pytest.mark.parametrize("host", ["docker.sock", "ftp://x", "localhost:2375", "unix:relative"])
def test_hosts_that_are_no_addresses(host: str) -> None:
    with pytest.raises(UsageError, match="is no address of an engine"):
        places.places("docker", {"DOCKER_HOST": host})
    with pytest.raises(UsageError, match="is no address of an engine"):
        places.given(host, {})


def test_a_path_is_a_socket() -> None:
    assert places.given("/x/docker.sock", {}).host == "unix:///x/docker.sock"


def test_podman_connections_of_version_5(tmp_path: Path) -> None:
    folder = tmp_path / ".config/containers"
    folder.mkdir(parents=True)
    connections = {"machine": {"URI": "ssh://core@127.0.0.1:50000/run/podman.sock"}}
    document = {"Connection": {"Default": "machine", "Connections": connections}}
    (folder / "podman-connections.json").write_text(json.dumps(document))
    environ = {"HOME": str(tmp_path)}
    assert hosts(places.places("podman", environ)) == [connections["machine"]["URI"]]
    environ["CONTAINER_HOST"] = "unix:///x.sock"
    assert hosts(places.places("podman", environ)) == ["unix:///x.sock"]


def test_podman_connections_of_version_4(tmp_path: Path) -> None:
    folder = tmp_path / "containers"
    folder.mkdir(parents=True)
    (folder / "containers.conf").write_text(
        '[engine]\nactive_service = "a"\n[engine.service_destinations.a]\nuri = "unix:///a.sock"\n'
    )
    environ = {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path)}
    assert hosts(places.places("podman", environ)) == ["unix:///a.sock"]
    environ["CONTAINER_CONNECTION"] = "b"
    with pytest.raises(UsageError, match="no such connection"):
        places.places("podman", environ)
