"""What every fault test shares: its row in the table."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from ledger import FULL, Row
from pty_terminal import Terminal

_outcome = pytest.StashKey[dict[str, pytest.TestReport]]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    item.stash.setdefault(_outcome, {})[report.when] = report
    return report


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The test fills it in; whether it passed, and how long it took, is added here."""
    found, started = Row(), time.monotonic()
    yield found
    report = request.node.stash.get(_outcome, {}).get("call")
    found.passed = bool(report and report.passed)
    found.skipped = bool(report and report.skipped)
    found.seconds = round(time.monotonic() - started, 1)
    found.write()


@pytest.fixture(autouse=True)
def no_terminal_left() -> Iterator[None]:
    yield
    for process in Terminal.processes:
        process.kill()
        process.wait()
    Terminal.processes.clear()


collect_ignore = [] if FULL else ["test_faults_stops.py"]  # tests/test_resume_exact.py stops at two steps in every run of the tests
