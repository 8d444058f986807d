"""A stress run fails for an error or for growth, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.payloads import score_ask, v2_ask
from benchmarks.stress import growth, judge, mix_script

REPORT = "  26000 requests in 65.0s, 3.90MB read\nRequests/sec:    400.00\n"
ERRORS = "  Socket errors: connect 0, read 3, write 0, timeout 0\n"
FLAT = [60.0] * 60 + [80.0] * 60
GROWING = [60.0] * 60 + [80.0 + 0.1 * second for second in range(60)]


@pytest.mark.parametrize(
    ("text", "samples", "ok"),
    [
        (REPORT, FLAT, True),
        (REPORT, GROWING, False),
        (REPORT + ERRORS, FLAT, False),
        ("", FLAT, False),
    ],
    ids=["well", "grows", "errors", "no-answers"],
)
def test_the_judgement(text: str, samples: list[float], ok: bool) -> None:
    outcome = judge(text, samples, 120, 200, ["score"], {})
    assert outcome.ok is ok
    assert bool(outcome.errors) is (text != REPORT)


def test_the_first_minute_does_not_count() -> None:
    assert growth(FLAT, 60) == (80.0, 80.0)


def test_of_a_short_run_half_does_not_count() -> None:
    assert growth([1.0] * 10 + [2.0] * 10, 60) == (2.0, 2.0)


def test_one_high_sample_is_no_growth() -> None:
    before, after = growth([*FLAT, 120.0], 60)
    assert after - before < 1


def test_the_mix_asks_all_kinds_in_turn(tmp_path: Path) -> None:
    text = mix_script([score_ask(), v2_ask()], tmp_path).read_text()
    assert '"/score"' in text
    assert "/v2/models/iris/infer" in text
    assert "asks[2]" in text
