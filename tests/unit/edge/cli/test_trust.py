from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from cryptography import x509

from edge.cli.broker import broker_config, revoked_list
from edge.cli.trust import trust
from edge.security.fleet import FleetSecurity
from edge.security.trust import DeviceTrust
from edge.workspace import GROUP
from scoring.errors import (
    AlreadyExistsError,
    FieldpostError,
    SigningKeyError,
    UsageError,
    VerificationError,
)
from serve import Workspace
from tests.support.small_packages import small_package

PASSWORD = "correct horse"


class Operator:
    """Types commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = folder / "workspace"
        self.keys = folder / "offline"
        with Workspace(self.where) as opened:
            self.package = small_package(opened, folder)

    def __call__(self, *words: object, command: click.Command = trust) -> dict[str, Any]:
        arguments = [str(word) for word in words]
        if words[0] != "add-signature":
            arguments += ["--workspace", str(self.where)]
        result = CliRunner().invoke(command, [*arguments, "--json"])
        if isinstance(result.exception, FieldpostError):
            raise result.exception
        assert result.exit_code == 0, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def key(self, name: str) -> Path:
        return self.keys / f"{name}.pem"


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    if not entry_points(group=GROUP):
        pytest.skip("the distribution is installed without the group fieldpost.workspaces")
    monkeypatch.delenv("FIELDPOST_FLEET_PASSWORD", raising=False)
    monkeypatch.delenv("FIELDPOST_FLEET_KEYS", raising=False)
    made = Operator(tmp_path)
    made("init", "--keys", made.keys)
    return made


@pytest.fixture
def security(operator: Operator) -> Iterator[FleetSecurity]:
    with Workspace(operator.where) as opened:
        yield FleetSecurity(opened.folder / "fleet" / "keys", opened.registry.database)


def test_keys_are_made_once_and_for_their_owner(operator: Operator) -> None:
    files = sorted(path.name for path in operator.keys.iterdir())
    assert files == ["root-1.pem", "root-2.pem", "root-3.pem", "targets.pem"]
    controller = operator.where / "fleet" / "keys"
    for path in (*operator.keys.iterdir(), *controller.glob("*.key"), controller / "director.pem"):
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AlreadyExistsError):
        operator("init", "--keys", operator.folder / "others")
    with pytest.raises(UsageError):
        operator("init", "--keys", operator.folder / "others", "--threshold", 4)


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        trust,
        ["init", "--keys", str(tmp_path / "k"), "--workspace", str(tmp_path / "w"), "--dry-run"],
    )
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "k").exists()


def test_a_signed_package_may_run_and_a_withdrawn_one_not(operator: Operator) -> None:
    package = operator.package.digest
    made = operator("sign", package, "--name", "iris", "--key", operator.key("targets"))
    assert made["release"] == 1
    assert made["versions"] == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
    shown = operator("show")
    assert shown["packages"] == {package: {"name": "iris", "release": 1}}
    assert shown["roles"]["root"]["threshold"] == 2
    again = operator("sign", package, "--name", "iris", "--key", operator.key("targets"))
    assert again["release"] == 2
    gone = operator("withdraw", "iris", "--below", 3, "--key", operator.key("targets"))
    assert gone["withdrawn"] == [package]
    assert operator("show")["packages"] == {}


def test_a_dry_run_signs_nothing(operator: Operator) -> None:
    operator(
        "sign",
        operator.package.digest,
        "--name",
        "iris",
        "--key",
        operator.key("targets"),
        "--dry-run",
    )
    assert operator("show")["packages"] == {}


def test_another_key_permits_nothing(operator: Operator) -> None:
    with pytest.raises(VerificationError, match="enough of its keys"):
        operator("sign", operator.package.digest, "--name", "iris", "--key", operator.key("root-1"))
    with pytest.raises(SigningKeyError, match="cannot be read"):
        operator("sign", operator.package.digest, "--name", "iris", "--key", operator.key("no"))
    assert operator("show")["packages"] == {}


def test_root_keys_that_are_in_different_places(
    operator: Operator, security: FleetSecurity, tmp_path: Path
) -> None:
    """One holder drafts, the next signs without a workspace, the controller publishes."""
    device = DeviceTrust(
        operator.folder, site="hall", device="camera", root=security.repository.root(1)
    )
    new, out = tmp_path / "targets-2.pem", tmp_path / "draft.json"
    draft = operator(
        "rotate", "targets", "--new", new, "--key", operator.key("root-1"), "--out", out
    )
    root, targets = (Path(name) for name in draft["files"])
    with pytest.raises(VerificationError):
        operator("publish", root, targets)
    operator("add-signature", root, "--key", operator.key("root-3"))
    assert operator("publish", root, targets)["versions"]["root"] == 2
    with pytest.raises(VerificationError):
        operator(
            "sign", operator.package.digest, "--name", "iris", "--key", operator.key("targets")
        )
    operator("sign", operator.package.digest, "--name", "iris", "--key", new)
    import time

    device.refresh(lambda name, _: security.repository.get(name), time.time())
    assert device.permits(operator.package.digest)
    assert device.versions["root"] == 2


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "director"])
def test_online_keys_rotate(operator: Operator, security: FleetSecurity, role: str) -> None:
    before = security.repository.trusted()
    signers = ["targets"] if role == "director" else ["root-1", "root-2"]
    given = [word for name in signers for word in ("--key", operator.key(name))]
    made = operator("rotate", role, "--new", operator.folder / "new.pem", *given)
    after = security.repository.trusted()
    keys = after.directors() if role == "director" else after.root.roles[role].keyids
    assert list(keys) == made["keys"]
    assert after.versions()["timestamp"] > before.versions()["timestamp"]
    assert operator("publish")["versions"]["timestamp"] == after.versions()["timestamp"] + 1
    assert len(list((operator.where / "fleet" / "keys").glob(f"{role}-*.old"))) == 1


def test_a_controller_renews_what_is_half_through_its_life(
    operator: Operator, security: FleetSecurity
) -> None:
    import time

    assert not security.refresh()
    later = FleetSecurity(
        security.folder, security._database, clock=lambda: time.time() + 1.5 * 86400
    )
    version = security.repository.trusted().versions()["timestamp"]
    assert later.refresh()
    assert not later.refresh()
    assert security.repository.trusted().versions()["timestamp"] == version + 1


def test_keys_with_a_password(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDPOST_FLEET_PASSWORD", PASSWORD)
    other = Operator.__new__(Operator)
    other.folder, other.where, other.keys = tmp_path, tmp_path / "w2", tmp_path / "k2"
    made = other("init", "--keys", other.keys)
    assert made["encrypted"]
    for path in (*other.keys.iterdir(), other.where / "fleet" / "keys" / "authority.key"):
        assert b"ENCRYPTED" in path.read_bytes()
    assert other("publish")["versions"]["timestamp"] == 2
    monkeypatch.setenv("FIELDPOST_FLEET_PASSWORD", "another")
    with pytest.raises(SigningKeyError) as caught:
        other("publish")
    assert "another" not in str(caught.value)
    monkeypatch.delenv("FIELDPOST_FLEET_PASSWORD")
    with pytest.raises(SigningKeyError, match="encrypted"):
        other("publish")


def test_a_users_own_authority(operator: Operator, tmp_path: Path) -> None:
    import time

    from edge.security.authority import Authority

    Authority.create(time.time(), "Works").save(tmp_path / "own")
    other = Operator.__new__(Operator)
    other.folder, other.where, other.keys = tmp_path, tmp_path / "w2", tmp_path / "k2"
    pair = (tmp_path / "own" / "authority.pem", tmp_path / "own" / "authority.key")
    other("init", "--keys", other.keys, "--authority", *pair)
    kept = (other.where / "fleet" / "keys" / "authority.pem").read_bytes()
    assert kept == pair[0].read_bytes()


def test_a_broker_is_configured(operator: Operator, security: FleetSecurity) -> None:
    etc = operator.folder / "etc"
    shown = operator(etc, "--host", "broker.example", "--dry-run", command=broker_config)
    assert "require_certificate true" in shown["config"]
    assert not etc.exists()
    made = operator(etc, "--host", "broker.example", "--host", "10.0.0.1", command=broker_config)
    assert made["start"] == ["mosquitto", "-c", str(etc / "mosquitto.conf")]
    certificate = x509.load_pem_x509_certificate((etc / "broker.pem").read_bytes())
    assert security.authority.issued(certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert operator(etc, command=revoked_list)["revoked"] == 0


def test_a_host_that_is_none_is_refused(operator: Operator) -> None:
    with pytest.raises(UsageError, match="no host"):
        operator(operator.folder / "etc", "--host", "a b", command=broker_config)
