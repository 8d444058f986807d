from __future__ import annotations

from edge.agent import health
from edge.telemetry import metrics

PAGE = """\
# TYPE fieldpost_requests counter
fieldpost_requests_total{model="iris",protocol="azureml",code="200"} 90
fieldpost_requests_total{model="iris",protocol="azureml",code="400"} 5
fieldpost_requests_total{model="iris",protocol="azureml",code="500"} 4
fieldpost_requests_total{model="iris",protocol="grpc",code="INTERNAL"} 1
fieldpost_request_duration_seconds_bucket{model="iris",protocol="azureml",le="0.01"} 50
fieldpost_request_duration_seconds_bucket{model="iris",protocol="azureml",le="0.1"} 98
fieldpost_request_duration_seconds_bucket{model="iris",protocol="azureml",le="1.0"} 99
fieldpost_request_duration_seconds_bucket{model="iris",protocol="azureml",le="+Inf"} 99
fieldpost_request_duration_seconds_bucket{model="iris",protocol="grpc",le="0.01"} 1
fieldpost_request_duration_seconds_bucket{model="iris",protocol="grpc",le="0.1"} 1
fieldpost_request_duration_seconds_bucket{model="iris",protocol="grpc",le="1.0"} 1
fieldpost_request_duration_seconds_bucket{model="iris",protocol="grpc",le="+Inf"} 1
"""


def read(page: str) -> health.Shown:
    return health.shown(metrics.traffic(metrics.parse(page)))


def test_requests_errors_and_the_slowest_hundredth_are_read() -> None:
    assert read(PAGE) == health.Shown(requests=100, failed=5, latency_s=0.1)


def test_what_is_slower_than_every_bound_counts_as_the_greatest() -> None:
    page = PAGE.replace('le="1.0"} 99', 'le="1.0"} 98').replace('le="0.1"} 98', 'le="0.1"} 50')
    assert read(page).latency_s == 1.0


def test_a_page_without_requests_says_nothing() -> None:
    assert read("up 1\n") == health.Shown()


def test_what_does_not_listen_is_not_ready() -> None:
    assert not health.is_ready(9, timeout_s=1)
    assert health.shown(health.counted(9, timeout_s=1)) == health.Shown()
    assert health.score(9, b"{}", timeout_s=1).status == 0
