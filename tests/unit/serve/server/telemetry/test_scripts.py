"""A script's code and traces, with OpenTelemetry's packages and without them."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from opentelemetry import trace as api

from serve.server.telemetry import scripts
from serve.server.telemetry.context import Parent, Trace
from serve.server.telemetry.scriptcontext import active
from serve.server.telemetry.traces import Tracer

PARENT = Parent(1, 2, sampled=True, state="a=1")


@pytest.fixture(autouse=True)
def _of_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts._Process, "runs_script", False)
    monkeypatch.setattr(scripts._Process, "active", None)


def test_without_a_bridge_the_code_runs_all_the_same() -> None:
    trace = Trace.begin(PARENT, sampled=True)
    assert scripts._Process.active is None
    assert scripts.within(trace, lambda: 7) == 7

    async def start(number: int) -> int:
        return number

    assert asyncio.run(scripts.within_task(trace, start, 8)) == 8


def test_with_a_bridge_the_code_sees_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts._Process, "active", staticmethod(active))
    trace = Trace.begin(PARENT, sampled=True)

    def seen() -> int:
        return api.get_current_span().get_span_context().span_id

    async def start() -> int:
        await asyncio.sleep(0)
        return seen()

    assert scripts.within(trace, seen) == trace.span_id
    assert asyncio.run(scripts.within_task(trace, start)) == trace.span_id
    assert seen() == 0


def test_servers_of_models_are_not_connected() -> None:
    tracer = Tracer.open("http://127.0.0.1:9", 0, "s", "http", {})
    scripts.connect(tracer)
    tracer.close()
    assert scripts._Process.active is None


def run_alone(code: str) -> None:
    begin = (
        "import sys\n"
        "from serve.server.telemetry import scripts\n"
        "from serve.server.telemetry.traces import Tracer\n"
        "tracer = Tracer.open('http://127.0.0.1:9', 1, 's', 'http', {})\n"
        "trace = tracer.begin([])\n"
        "scripts.expect()\n"
    )
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_without_opentelemetry_nothing_is_missed() -> None:
    run_alone(
        "sys.modules['opentelemetry'] = None\n"
        "scripts.connect(tracer)\n"
        "assert scripts.within(trace, lambda: 7) == 7\n"
    )


def test_its_api_is_enough_for_the_context() -> None:
    run_alone(
        "sys.modules['opentelemetry.sdk'] = None\n"
        "scripts.connect(tracer)\n"
        "from opentelemetry import trace as api\n"
        "span = lambda: api.get_current_span().get_span_context().span_id\n"
        "assert scripts.within(trace, span) == trace.span_id\n"
    )


def test_a_provider_of_the_scripts_own_is_left_alone() -> None:
    run_alone(
        "from opentelemetry import trace as api\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "own = TracerProvider()\n"
        "api.set_tracer_provider(own)\n"
        "scripts.connect(tracer)\n"
        "assert api.get_tracer_provider() is own\n"
        "span = lambda: api.get_current_span().get_span_context().span_id\n"
        "assert scripts.within(trace, span) == trace.span_id\n"
    )


def test_the_sdk_brings_no_exporter_along() -> None:
    run_alone(
        "scripts.connect(tracer)\n"
        "from opentelemetry import trace as api\n"
        "def run():\n"
        "    with api.get_tracer('t').start_as_current_span('s') as span:\n"
        "        return span.is_recording()\n"
        "assert scripts.within(trace, run)\n"
        "assert not {'requests', 'google', 'opentelemetry.exporter'} & set(sys.modules)\n"
    )
