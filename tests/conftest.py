"""What every test shares: a home of its own, and the real material where it is there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from local_hub import LocalHub, environment

if TYPE_CHECKING:
    from waiting import Waiters

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests run at a time, on two cores perhaps

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def tui_ft_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Presets, runs and caches of this test alone."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TUI_FT_HOME", str(folder))
    return folder


@pytest.fixture
def shared_data() -> Path:
    """Real datasets, tokenizers and a small trained model, outside the project."""
    if not SHARED.is_dir():
        pytest.skip("the shared test data is not on this machine")
    return SHARED


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """An empty Hub on this machine's loopback, which every child started from here on takes for the real one."""
    served = LocalHub()
    environment(monkeypatch, served.address, tmp_path / "hf")
    yield served
    served.close()


@pytest.fixture
def no_run_stays(tui_ft_home: Path) -> Iterator[None]:
    """Whatever a test started is gone with it: a worker dies with its supervisor."""
    yield
    from tui_ft.runs import store

    for run in store.all_runs():
        owner = run.owner()
        if owner and owner[0].is_alive():
            os.kill(owner[0].pid, signal.SIGKILL)


@pytest.fixture
def waiters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_run_stays: None) -> Waiters:
    """Makes runs that wait, under real supervisors; none of them is left behind."""
    from waiting import Waiters

    folder = tmp_path / "tiny"
    folder.mkdir()
    return Waiters(folder, monkeypatch)
