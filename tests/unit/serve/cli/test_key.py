"""`fieldpost key`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from scoring.errors import AlreadyExistsError, FieldpostError, InUseError, NotFoundError
from serve.cli import key as commands
from serve.server.access import keyfile, keys
from serve.server.access.keychain import Keychain

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC)


class Terminal:
    """Runs commands on one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, command: click.Command, *arguments: str) -> str:
        result = CliRunner().invoke(command, [*arguments, "--file", str(self.path)])
        if isinstance(result.exception, FieldpostError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, command: click.Command, *arguments: str) -> Any:
        return json.loads(self.run(command, *arguments, "--json"))

    def usage(self, command: click.Command, *arguments: str) -> str:
        result = CliRunner().invoke(command, [*arguments, "--file", str(self.path)])
        assert result.exit_code == 2
        return result.stderr

    def takes(self, text: str) -> bool:
        known = {key.id: key for key in keyfile.read(self.path).keys}
        try:
            keys.verify(text.strip(), known, datetime.now(UTC))
        except FieldpostError:
            return False
        return True


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "new" / "keys.json")


def test_a_new_key_is_printed_alone_and_taken(terminal: Terminal) -> None:
    text = terminal.run(commands.create, "ci")
    assert text.count("\n") == 1
    assert terminal.takes(text)


def test_json_has_all_but_the_hash(terminal: Terminal) -> None:
    made = terminal.json(
        commands.create, "ci", "--scope", "admin", "--scope", "infer", "--model", "iris",
        "--expires", "90d", "--rate", "10", "--burst", "5",
    )  # fmt: skip
    assert terminal.takes(made["key"])
    assert made["scopes"] == ["infer", "admin"]
    assert (made["models"], made["rate"], made["burst"]) == (["iris"], 10, 5)
    left = datetime.fromisoformat(made["expires"]) - NOW
    assert timedelta(days=89) < left < timedelta(days=91)
    assert not {"salt", "hash"} & made.keys()
    (listed,) = terminal.json(commands.list_keys)
    assert listed == {k: v for k, v in made.items() if k not in {"key", "file"}}


def test_a_holder_has_one_key_or_two_while_they_change(terminal: Terminal) -> None:
    old = terminal.json(commands.create, "ci", "--model", "iris")
    with pytest.raises(AlreadyExistsError) as refused:
        terminal.run(commands.create, "ci")
    assert "key rotate ci" in refused.value.hint
    new = terminal.json(commands.rotate, "ci")
    assert terminal.takes(old["key"])
    assert terminal.takes(new["key"])
    assert new["models"] == ["iris"]
    with pytest.raises(InUseError) as refused_again:
        terminal.run(commands.rotate, "ci")
    assert old["id"] in refused_again.value.hint
    terminal.run(commands.revoke, old["id"])
    assert not terminal.takes(old["key"])
    assert terminal.takes(new["key"])


def test_a_successor_lasts_as_long_as_the_first_was_made_for(tmp_path: Path) -> None:
    chain = Keychain(tmp_path / "keys")
    first, _ = chain.create("ci", expires=NOW + timedelta(days=30))
    second, _ = chain.rotate("ci")
    assert first.expires is not None
    assert second.expires is not None
    assert second.expires - second.created == first.expires - first.created


def test_what_is_over_is_listed_when_asked(terminal: Terminal) -> None:
    made = terminal.json(commands.create, "ci")
    terminal.run(commands.revoke, made["id"])
    assert terminal.run(commands.list_keys) == "There are no keys.\n"
    assert made["id"] in terminal.run(commands.list_keys, "--all")
    assert terminal.json(commands.list_keys, "--all")[0]["state"] == "revoked"
    with pytest.raises(NotFoundError):
        terminal.run(commands.revoke, made["id"])
    with pytest.raises(NotFoundError):
        terminal.run(commands.rotate, "ci")
    terminal.run(commands.create, "ci")


def test_a_dry_run_changes_nothing(terminal: Terminal) -> None:
    assert "Would make" in terminal.run(commands.create, "ci", "--dry-run")
    assert not terminal.path.exists()
    made = terminal.json(commands.create, "ci")
    before = terminal.path.read_bytes()
    assert "key" not in terminal.json(commands.rotate, "ci", "--dry-run")
    assert "Would revoke" in terminal.run(commands.revoke, made["id"], "--dry-run")
    assert terminal.path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ci", "--expires", "soon"], "neither a span"),
        (["ci", "--expires", "-1d"], "over already"),
        (["ci", "--expires", "2001-01-01"], "over already"),
        (["ci", "--expires", "99999999999999999999d"], "neither a span"),
        (["ci", "--scope", "root"], "infer"),
        (["ci", "--rate", "-1"], "rate"),
        ([], "NAME"),
    ],
)
def test_wrong_arguments_are_told(terminal: Terminal, arguments: list[str], said: str) -> None:
    assert said in terminal.usage(commands.create, *arguments)


@pytest.mark.parametrize("when", ["2999-01-31", "2999-01-31T10:00", "2999-01-31T10:00+02:00", "2w"])
def test_an_end_may_be_a_date(terminal: Terminal, when: str) -> None:
    assert terminal.json(commands.create, "ci", "--expires", when)["expires"]


def test_the_file_is_the_workspaces_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIELDPOST_SERVER_API_KEYS", raising=False)
    runner = CliRunner()
    assert runner.invoke(commands.create, ["ci", "--workspace", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "api-keys.json").exists()
    result = runner.invoke(
        commands.create, ["ci", "--workspace", "postgresql://host/db?blobs=/tmp"]
    )
    assert result.exit_code == 2
    assert "--file" in result.stderr
    monkeypatch.setenv("FIELDPOST_SERVER_API_KEYS", str(tmp_path / "other"))
    assert runner.invoke(commands.create, ["ci"]).exit_code == 0
    assert (tmp_path / "other").exists()


def test_those_who_change_a_file_at_once_lose_nothing(tmp_path: Path) -> None:
    chain = Keychain(tmp_path / "keys")

    def work(number: int) -> None:
        for turn in range(5):
            chain.create(f"holder-{number}-{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(chain.list()) == 30
