"""Every server that is measured can be started as it is described."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import contenders, payloads
from benchmarks.contender import Contender, Start
from benchmarks.peer_files import copy_script, mlserver_in_process_files
from benchmarks.rows import ROWS
from benchmarks.venvs import PINS

ALL = [*contenders.PEERS, contenders.MLSERVER_AS_IT_COMES, contenders.BARE_GRPC]
ALL += [contenders.BARE_SCORE, contenders.BARE_V2, contenders.BARE_LARGE, contenders.BARE_BINARY]
ALL += [contenders.ours({}, {}), contenders.our_script({}, {})]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    model = tmp_path / "iris.onnx"
    model.write_bytes(b"onnx")
    folder = tmp_path / "own"
    folder.mkdir()
    return Start(folder, model, (1001, 1002, 1003))


@pytest.mark.parametrize("contender", ALL, ids=lambda contender: contender.name)
def test_commands_are_complete(contender: Contender, start: Start) -> None:
    words = start.words(contender.venv)
    command = [word.format(**words) for word in contender.command]
    environment = [value.format(**words) for value in contender.environment.values()]
    assert not any("{" in text for text in [*command, *environment])


@pytest.mark.parametrize("contender", contenders.PEERS, ids=lambda contender: contender.name)
def test_pins_are_exact(contender: Contender) -> None:
    lines = (PINS / f"{contender.venv}.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert all("==" in line for line in lines)
    assert {name.lower() for name in contender.distributions} <= pinned


def test_our_requests_carry_the_key() -> None:
    ours = contenders.ours({}, {"Authorization": "Bearer k"})
    assert all(ask.headers["Authorization"] == "Bearer k" for ask in ours.asks.values())
    assert ours.asks["binary"].headers["Inference-Header-Content-Length"]


def test_mlserver_gets_its_ports(start: Start) -> None:
    mlserver_in_process_files(start)
    settings = json.loads((start.folder / "settings.json").read_text())
    assert (settings["http_port"], settings["grpc_port"]) == (1001, 1002)
    assert settings["parallel_workers"] == 0


def test_the_script_stands_beside_its_model(start: Start) -> None:
    copy_script(start)
    assert {path.name for path in start.folder.iterdir()} == {"script.py", "iris.onnx"}


def test_the_rows_are_those_of_the_command() -> None:
    names = ["score", "v2", "large", "binary", "script", "grpc", "start", "tail", "stress"]
    assert list(ROWS) == names


def test_asks_have_names_of_their_own() -> None:
    asks = [payloads.score_ask(), payloads.v2_ask(), payloads.large_ask(), payloads.binary_ask()]
    assert len({ask.name for ask in asks}) == len(asks)
