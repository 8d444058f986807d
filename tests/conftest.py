"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import postgres
from tests.support import bases, engines

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path


def pytest_configure() -> None:
    """Lets commands that tests start hear Ctrl-C: who runs in the background inherits that not.

    No example of a property has to be quick: how long it takes is up to what runs beside it.
    """
    settings.register_profile("shared", deadline=None)
    settings.load_profile("shared")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets a test fail once where others run beside it: machines are shared.

    Alone it has to pass at once. What was run again is told at the end of the run, by name.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        for item in items:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets reports with half characters in what was logged travel between processes."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells why tests were run again: a failure that went away is one to look into."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"first run of {report.nodeid}", sep="-")
        terminalreporter.line(report.longreprtext[-3000:])


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgres.PostgreSQL]:
    """A real PostgreSQL server; tests that need it are skipped where it is not installed."""
    binaries = postgres.find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server (initdb, postgres) is not installed")
    with postgres.running(binaries) as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: postgres.PostgreSQL) -> postgres.PostgreSQL:
    """The server with an empty database."""
    postgresql_server.clear()
    return postgresql_server


@pytest.fixture(scope="session")
def base_rootfs() -> Path:
    """A tar archive of Debian with Python 3.11; skipped where none can be made."""
    try:
        return bases.base_rootfs()
    except bases.NoBaseError as error:
        pytest.skip(f"no root filesystem for images: {error}")


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.RunningEngine]:
    """A private dockerd, shared by the processes of this run; skipped where none can run."""
    yield from _engine("docker", tmp_path_factory)


@pytest.fixture(scope="session")
def podman_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.RunningEngine]:
    """A private Podman service, shared by the processes of this run; skipped where none can run."""
    yield from _engine("podman", tmp_path_factory)


def _engine(kind: engines.Kind, folders: pytest.TempPathFactory) -> Iterator[engines.RunningEngine]:
    base = folders.getbasetemp()
    place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    try:
        with engines.shared(kind, place) as engine:
            yield engine
    except engines.NoEngineError as error:
        pytest.skip(f"no {kind} engine: {error}")
