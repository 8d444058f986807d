from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from cryptography import x509

from edge.cli import enrolment
from edge.cli.broker import broker_config
from edge.security import identity
from edge.security.fleet import FleetSecurity
from edge.security.letters import EnrolRequest
from scoring.errors import FieldpostError, InvalidNameError, NotFoundError
from serve import Workspace


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FIELDPOST_FLEET_PASSWORD", raising=False)
    monkeypatch.delenv("FIELDPOST_FLEET_KEYS", raising=False)
    return tmp_path / "workspace"


def _run(where: Path, command: click.Command, *words: object) -> dict[str, Any]:
    arguments = [*(str(word) for word in words), "--workspace", str(where), "--json"]
    result = CliRunner().invoke(command, arguments)
    if isinstance(result.exception, FieldpostError):
        raise result.exception
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_a_device_comes_and_goes(where: Path, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    _run(where, broker_config, etc, "--host", "localhost")
    token = _run(where, enrolment.claim, "camera", "--site", "hall")["token"]
    listed = _run(where, enrolment.claims)["claims"]
    assert [(one["site"], one["device"]) for one in listed] == [("hall", "camera")]
    assert token not in json.dumps(listed)
    with Workspace(where) as opened:
        security = FleetSecurity(opened.folder / "fleet" / "keys", opened.registry.database)
        csr = identity.request(tmp_path / "device").decode()
        security.enrolment().enrol(EnrolRequest(token=token, csr=csr))
    assert len(_run(where, enrolment.certificates, "camera")["certificates"]) == 1
    assert _run(where, enrolment.revoke, "camera", "--dry-run")["serials"]
    gone = _run(where, enrolment.revoke, "camera", "--reason", "lost", "--broker", etc)["serials"]
    listed = x509.load_pem_x509_crl((etc / "revoked.pem").read_bytes())
    assert [f"{one.serial_number:x}" for one in listed] == gone
    assert _run(where, enrolment.certificates)["certificates"][0]["reason"] == "lost"
    with pytest.raises(NotFoundError):
        _run(where, enrolment.revoke, "camera")


def test_a_token_is_taken_back(where: Path) -> None:
    _run(where, enrolment.claim, "camera", "--site", "hall", "--hours", 1)
    open_ = _run(where, enrolment.claims)["claims"]
    _run(where, enrolment.cancel, open_[0]["id"])
    assert _run(where, enrolment.claims)["claims"] == []


def test_a_dry_run_makes_no_token_and_wrong_names_none(where: Path) -> None:
    _run(where, enrolment.claim, "camera", "--site", "hall", "--dry-run")
    assert not (where / "fleet").exists()
    with pytest.raises(InvalidNameError):
        _run(where, enrolment.claim, "a/b", "--site", "hall")
