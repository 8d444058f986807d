"""The way in: channels, meters, scrapes."""

from __future__ import annotations

import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import pytest

from scoring.errors import UsageError
from scoring.http import Response
from serve.server.settings import ServerSettings
from serve.server.telemetry import metrics
from serve.server.telemetry.channel import Details
from serve.server.telemetry.telemetry import SLOT_VARIABLE, Telemetry
from tests.support.server import until
from tests.support.telemetry import scrape


def make(environment: dict[str, str] | None = None, **given: Any) -> Telemetry:
    return Telemetry.from_settings(
        ServerSettings(**given), lambda call, *args: call(*args), environment or {}
    )


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


class Asked:
    """What a route needs of an exchange."""

    def __init__(self, accept: str = "") -> None:
        self.accept = accept
        self.answers: list[Response] = []

    def header(self, name: bytes) -> str:
        return self.accept if name == b"accept" else ""

    def respond(self, response: Response) -> None:
        self.answers.append(response)


def test_a_request_is_counted_with_its_time_and_sizes() -> None:
    telemetry = make()
    channel = telemetry.channel("v2", "iris", "3", route="/v2/models/{model}/infer")
    channel.answered(200, perf_counter() - 0.003, 100, 65)
    channel.answered(400, perf_counter() - 0.003, 64, 0)
    page = scrape(telemetry)
    labels = {"model": "iris", "version": "3", "protocol": "v2"}
    assert page("fieldpost_requests_total", **labels, code="200") == 1
    assert page("fieldpost_requests_total", **labels, code="400") == 1
    name = "fieldpost_request_duration_seconds"
    assert page(f"{name}_bucket", **labels, le="0.002") == 0
    assert page(f"{name}_count", **labels) == 2
    assert 0.006 <= page(f"{name}_sum", **labels) < 1
    assert page("fieldpost_request_bytes_bucket", **labels, le="64.0") == 1
    assert page("fieldpost_request_bytes_sum", **labels) == 164
    assert page("fieldpost_response_bytes_bucket", **labels, le="64.0") == 1
    assert page("fieldpost_response_bytes_sum", **labels) == 65
    telemetry.close()


def test_what_is_above_every_bound_counts_in_the_last_bucket() -> None:
    telemetry = make()
    telemetry.channel("http").answered(200, perf_counter() - 1000, 1 << 40, 1 << 40)
    meter = telemetry.model("m", "1")
    meter.ran(1, 1 << 30, 1e6)
    page = scrape(telemetry)
    for name in (
        "request_duration_seconds",
        "request_bytes",
        "response_bytes",
        "batch_rows",
        "model_run_seconds",
    ):
        buckets = {
            dict(labels)["le"]: value
            for (known, labels), value in page.samples.items()
            if known == f"fieldpost_{name}_bucket"
        }
        assert buckets.pop("+Inf") == 1
        assert set(buckets.values()) == {0}
        assert page(f"fieldpost_{name}_count") == 1
    telemetry.close()


def test_channels_of_one_model_share_their_counts() -> None:
    telemetry = make()
    one, two = (telemetry.channel("v2", "m", "1", route=route) for route in ("/a", "/b"))
    assert one is not two
    assert telemetry.channel("v2", "m", "1", route="/a") is one
    one.answered(200, perf_counter(), 0, 0)
    two.answered(200, perf_counter(), 0, 0)
    assert scrape(telemetry)("fieldpost_requests_total", model="m") == 2
    telemetry.close()


def test_errors_and_rejections_are_counted_by_their_kind() -> None:
    telemetry = make()
    channel = telemetry.channel("score", "m", "1")
    channel.failed("wrong_shape")
    channel.failed("wrong_shape")
    telemetry.rejected("overloaded")
    page = scrape(telemetry)
    assert page("fieldpost_errors_total", kind="wrong_shape", model="m", protocol="score") == 2
    assert page("fieldpost_rejected_total", reason="overloaded") == 1
    telemetry.close()


def test_grpc_statuses_have_names() -> None:
    telemetry = make()
    channel = telemetry.channel("grpc", "m", "1")
    for status in (0, 3, 16, 99):
        channel.answered(status, perf_counter(), 1, 1)
    codes = {labels["code"] for labels in scrape(telemetry).labels("fieldpost_requests_total")}
    assert codes == {"OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "99"}
    telemetry.close()


def test_runs_and_loads_of_a_model_are_counted() -> None:
    telemetry = make()
    meter = telemetry.model("m", "1", runtime="onnx", form="onnx")
    meter.loaded(1.5)
    meter.ran(3, 17, 0.01)
    meter.depth = lambda: 7
    page = scrape(telemetry)
    assert page("fieldpost_model_loaded", model="m", runtime="onnx", format="onnx") == 1
    assert page("fieldpost_model_load_seconds", model="m", version="1") == 1.5
    assert page("fieldpost_model_loads_total", outcome="ok") == 1
    assert page("fieldpost_batch_requests_total") == 3
    assert page("fieldpost_batch_rows_bucket", le="16.0") == 0
    assert page("fieldpost_batch_rows_bucket", le="32.0") == 1
    assert page("fieldpost_model_run_seconds_count") == 1
    assert page("fieldpost_queue_depth", model="m") == 7
    telemetry.model("broken", "1").load_failed()
    assert scrape(telemetry)("fieldpost_model_loads_total", model="broken", outcome="failed") == 1
    telemetry.close()


def test_a_model_that_takes_anothers_place_is_counted_beside_it() -> None:
    telemetry = make()
    old, new = telemetry.model("m", "1"), telemetry.model("m", "1")
    waiting = 2
    old.depth, new.depth = lambda: waiting, lambda: 3
    old.loaded(1)
    old.loaded(1)
    new.loaded(2)
    page = scrape(telemetry)
    assert page("fieldpost_model_loaded", model="m") == 2
    assert page("fieldpost_queue_depth", model="m") == 5
    old.unloaded()
    old.unloaded()
    page = scrape(telemetry)
    assert page("fieldpost_model_loaded", model="m") == 1
    assert page("fieldpost_queue_depth", model="m") == 5  # it is still being emptied
    waiting = 0
    assert scrape(telemetry)("fieldpost_queue_depth", model="m") == 3
    assert len(telemetry._meters) == 1  # nothing holds the old model any more
    new.unloaded()
    new.depth = lambda: 0
    page = scrape(telemetry)
    assert page("fieldpost_model_loaded", model="m") == 0
    assert page("fieldpost_queue_depth", model="m") == 0
    assert page("fieldpost_model_load_seconds", model="m") == 2
    telemetry.close()


def test_what_goes_on_is_asked_at_each_scrape() -> None:
    telemetry = make()
    now = {"in_flight": 3, "connections": 5}
    telemetry.watch(in_flight=lambda: now["in_flight"], connections=lambda: now["connections"])
    assert scrape(telemetry)("fieldpost_in_flight") == 3
    now["in_flight"] = 0
    page = scrape(telemetry)
    assert page("fieldpost_in_flight") == 0
    assert page("fieldpost_connections", worker="0") == 5
    telemetry.close()


def test_a_scrape_tells_of_the_process_and_the_server() -> None:
    telemetry = make()
    page = scrape(telemetry)
    assert page("fieldpost_workers") == 1
    assert page("fieldpost_worker_starts_total") == 1
    assert 0 <= page("fieldpost_uptime_seconds") < 60
    assert page("fieldpost_build_info") == 1
    assert page("process_resident_memory_bytes", worker="0") > 1 << 20
    assert page("process_cpu_seconds_total") > 0
    assert page("process_open_fds") > 2
    telemetry.close()


def test_workers_of_one_server_show_their_sum(tmp_path: Path) -> None:
    workers = [make({SLOT_VARIABLE: str(n)}, metrics_dir=str(tmp_path)) for n in range(3)]
    for many, worker in enumerate(workers, start=1):
        worker.watch(in_flight=lambda: 1, connections=lambda: 2)
        for _ in range(many):
            worker.channel("score", "m", "1").answered(200, perf_counter(), 10, 10)
        worker.tick()
        for other in workers:  # live, whoever is asked
            got = scrape(other)("fieldpost_requests_total", model="m", code="200")
            assert got == sum(range(many + 1))
    page = scrape(workers[0])
    assert page("fieldpost_workers") == 3
    assert page("fieldpost_in_flight") == 3
    assert {labels["worker"] for labels in page.labels("fieldpost_in_flight")} == {"0", "1", "2"}
    assert page("fieldpost_request_bytes_sum") == 60
    for worker in workers:
        worker.close()
    again = make({SLOT_VARIABLE: "0"}, metrics_dir=str(tmp_path))
    page = scrape(again)
    assert page("fieldpost_requests_total") == 6
    assert page("fieldpost_worker_starts_total") == 4
    again.close()


def test_models_without_number_become_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.server.telemetry.telemetry._MOST_CHANNELS", 50)
    telemetry = make()
    many = 1500
    for number in range(many):
        channel = telemetry.channel("v2", f"m{number}", "1")
        channel.answered(200, perf_counter(), 1, 1)
        channel.failed("wrong_shape")
        telemetry.model(f"m{number}", "1").loaded(1)
    page = scrape(telemetry)
    assert page("fieldpost_requests_total") == many
    assert page("fieldpost_requests_total", model="other", protocol="v2", code="200") > 0
    assert page("fieldpost_errors_total") == many
    assert page("fieldpost_request_duration_seconds_count") == many
    assert page("fieldpost_model_loads_total") == many
    telemetry.close()


def test_the_route_answers_in_the_format_that_is_wanted() -> None:
    telemetry = make()
    handler: Any = telemetry.routes["/metrics"]["GET"]
    for accept, kind, end in (
        ("", metrics.TEXT, b"\n"),
        ("application/openmetrics-text", metrics.OPENMETRICS, b"\n# EOF\n"),
    ):
        asked = Asked(accept)
        handler(asked)
        (answer,) = asked.answers
        assert answer.status == 200
        assert answer.headers == [("content-type", kind)]
        assert isinstance(answer.body, bytes)
        assert answer.body.endswith(end)
    telemetry.close()


def test_a_long_page_is_written_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.server.telemetry.telemetry._MANY_BLOCKS", 0)
    posted: list[Any] = []
    threads: set[int] = set()

    def post(call: Any, *args: Any) -> None:
        threads.add(threading.get_ident())
        posted.append(lambda: call(*args))

    telemetry = Telemetry.from_settings(ServerSettings(), post, {})
    asked = [Asked(), Asked("application/openmetrics-text"), Asked()]
    for each in asked:
        telemetry.routes["/metrics"]["GET"](each)  # type: ignore[arg-type]
    until(lambda: len(posted) == 1)
    assert not any(each.answers for each in asked)
    posted[0]()
    assert [len(each.answers) for each in asked] == [1, 0, 1]
    until(lambda: len(posted) == 2)
    posted[1]()
    assert [len(each.answers) for each in asked] == [1, 1, 1]
    assert threading.get_ident() not in threads
    telemetry.close()


def test_without_metrics_nothing_is_counted_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    telemetry = make(metrics="off", access_log=str(path))
    assert telemetry.routes == {}
    assert telemetry.details
    details = Details(b'"1.2.3.4:5"', b"POST", b"/score", [])
    telemetry.channel("score", "m", "1").answered(200, perf_counter(), 1, 2, details)
    telemetry.close()
    assert orjson.loads(path.read_bytes())["status"] == 200
    assert scrape(telemetry)("fieldpost_requests_total") == 0
    assert scrape(telemetry)("fieldpost_access_log_lines_total", outcome="written") == 1


def test_lines_of_the_log_are_counted(tmp_path: Path) -> None:
    telemetry = make(access_log=str(tmp_path / "log"), metrics_dir=str(tmp_path / "m"))
    details = Details(b'"1.2.3.4:5"', b"POST", b"/score", [])
    telemetry.channel("score").answered(200, perf_counter(), 1, 2, details)
    telemetry.close()
    again = make(metrics_dir=str(tmp_path / "m"))
    assert scrape(again)("fieldpost_access_log_lines_total", outcome="written") == 1
    again.close()


def test_a_slot_is_checked() -> None:
    with pytest.raises(UsageError) as caught:
        make({SLOT_VARIABLE: "../x"})
    assert caught.value.where == SLOT_VARIABLE


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError) as caught:
        make(metrics_dir=str(tmp_path / "file" / "m"))
    assert caught.value.where == "metrics_dir"


def test_the_folder_of_metrics_stays_out_of_a_single_worker() -> None:
    before = _descriptors()
    telemetry = make()
    telemetry.channel("score").answered(200, perf_counter(), 1, 2)
    assert _descriptors() <= before
    assert not telemetry.details
    telemetry.close()
