"""The files of the TLS to a collector."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.errors import UsageError
from serve.server.telemetry.collectortls import Contexts
from serve.server.telemetry.otlpsettings import Target
from tests.support.certificates import Authority

OTLP = "OTEL_EXPORTER_OTLP_"


def test_a_context_is_made_anew_only_where_a_file_has_changed(tmp_path: Path) -> None:
    ca = Authority().write(tmp_path / "ca.pem")
    contexts = Contexts(Target.make("https://c", {OTLP + "CERTIFICATE": str(ca)}))
    first = contexts.current()
    assert contexts.current() is first
    ca.write_bytes(Authority("other").write(tmp_path / "other.pem").read_bytes() + b"\n")
    second = contexts.current()
    assert second is not first
    assert contexts.current() is second


@pytest.mark.parametrize("name", ["CERTIFICATE", "CLIENT_CERTIFICATE"])
@pytest.mark.parametrize("content", [None, "nonsense"])
def test_a_file_that_cannot_be_used_is_said_at_once(
    tmp_path: Path, name: str, content: str | None
) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError) as caught:
        Contexts(Target.make("https://c", {OTLP + name: str(file)}))
    assert caught.value.where == OTLP + name
    assert str(file) in caught.value.message


def test_nobody_is_asked_for_a_passphrase(tmp_path: Path) -> None:
    cert, key = Authority().issue(tmp_path, "locked", "hunter2")
    with pytest.raises(UsageError) as caught:
        Contexts(
            Target.make(
                "https://c", {OTLP + "CLIENT_CERTIFICATE": str(cert), OTLP + "CLIENT_KEY": str(key)}
            )
        )
    assert "passphrase" in caught.value.message
