from serve.targets.docker import events
from serve.targets.docker.events import Told


def line(name: str, state: str, more: str = "") -> str:
    return f'2026-01-01T00:00:00.1Z {{"front": "{name}", "state": "{state}"{more}}}'


def test_a_worker_answers_when_it_is_ready_and_let_in() -> None:
    lines = [line("", "listening"), line("r1/w0", "joined")]
    assert events.read(lines)["r1/w0"] == Told(joined=True)
    lines.append(line("r1/w0", "ready"))
    assert not events.read(lines)["r1/w0"].answers
    lines.append(line("r1/w0", "opened"))
    assert events.read(lines)["r1/w0"].answers


def test_the_order_of_ready_and_opened_does_not_matter() -> None:
    lines = [line("a", state) for state in ("joined", "opened", "ready")]
    assert events.read(lines)["a"].answers


def test_who_has_gone_does_not_answer_and_its_error_is_kept() -> None:
    error = ', "error": {"code": "x", "message": "boom"}, "detail": "trace"'
    lines = [line("a", "joined"), line("a", "failed", error), line("a", "gone")]
    told = events.read(lines)["a"]
    assert (told.joined, told.detail) == (False, "trace")
    assert told.error == {"code": "x", "message": "boom"}
    lines += [line("a", "joined"), line("a", "ready"), line("a", "opened")]
    assert events.read(lines)["a"] == Told(joined=True, ready=True, opened=True)


def test_a_front_that_starts_anew_knows_nobody() -> None:
    lines = [line("a", "joined"), line("a", "ready"), line("a", "opened"), line("", "listening")]
    assert not events.read(lines)["a"].answers


def test_other_lines_are_passed_over() -> None:
    lines = ["", "x", 'T {"front": ', 'T {"front": 3, "state": "ready"}', 'T {"other": 1}', "T []"]
    assert events.read(lines) == {}
    assert events.read([line("a", "ready", "garbage")]) == {}
