"""The world around a run: clocks that jump, folders that vanish, become read-only or bear odd names, a second supervisor, other versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from ledger import Row
from runs import republish, tui_ft, tui_ft_json

from tui_ft.recipe import Plan
from tui_ft.recipe.files import validate
from tui_ft.runs import checkpoints, control, launch, store
from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize

STANDIN = Path(__file__).parent / "standin"
PROMISE = "the world may change"


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Starts a stand-in training that goes on until it is stopped."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STANDIN), os.environ.get("PYTHONPATH", "")]))

    def begin() -> Run:
        recipe = validate(
            {
                "name": "standin", "model": {"name": "none"}, "data": {"source": "none"}, "train": {"max_steps": 1_000_000},
                "checkpoints": {"every": 50}, "evaluate": {"every": "never"},
            }
        )  # fmt: skip
        run = store.create(recipe, Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))
        launch.start(run)
        _wait(lambda: summarize(run).step > 5)
        return run

    return begin


@pytest.mark.parametrize("step", [86_400.0, -86_400.0], ids=["forward", "back"])
def test_a_stepped_clock(begin: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float, row: Row) -> None:
    """A day, for worker, supervisor and command line alike: states, commands and their expiry go by other clocks."""
    row.promise, row.fault, row.cases = PROMISE, f"wall clock stepped {'forward' if step > 0 else 'back'} a day", 1
    clock = tmp_path / "clock"
    monkeypatch.setenv("TUI_FT_CLOCK", str(clock))
    run = begin()
    clock.write_text(str(step))
    assert tui_ft_json("runs")[0]["state"] == "running"
    assert tui_ft_json("set", run.id, "learning_rate=1e-5")["phase"] == "effected"
    assert tui_ft_json("pause", run.id)["phase"] == "effected"
    clock.write_text("0")
    assert tui_ft_json("runs")[0]["state"] == "paused"
    assert tui_ft_json("resume", run.id, "--detach")["run"] == run.id
    clock.write_text(str(-step))
    before = summarize(run).step
    _wait(lambda: summarize(run).step > before)
    assert tui_ft_json("stop", run.id)["phase"] == "effected"
    _wait(lambda: tui_ft_json("show", run.id)["state"] == "stopped")


@pytest.mark.parametrize("name", ["with spaces and 'quotes'", "Größe 模型 🦆", "-dash $HOME `x` %s"])
def test_odd_paths(begin: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, row: Row) -> None:
    row.promise, row.fault, row.cases = PROMISE, "a path with spaces, quotes, Unicode", 1
    monkeypatch.setenv("TUI_FT_HOME", str(tmp_path / name))
    run = begin()
    assert str(run.path).startswith(str(tmp_path / name))
    assert tui_ft_json("checkpoint", run.id)["phase"] == "effected"
    assert tui_ft_json("stop", run.id)["phase"] == "effected"
    _wait(lambda: summarize(run).state == "stopped")
    assert tui_ft_json("show", run.id)["dir"] == str(run.path)


def test_a_deleted_run_directory(begin: Callable[..., Run], row: Row) -> None:
    """By force, under a living run: its processes end by themselves, and what looks at runs goes on."""
    row.promise, row.fault, row.cases = PROMISE, "run directory deleted under a living run", 1
    run = begin()
    processes = _processes(run)
    assert len(processes) == 2
    aside = run.path.with_name(".gone")
    run.path.rename(aside)
    shutil.rmtree(aside)
    _wait(lambda: not any(_is_alive(process) for process in processes))
    assert tui_ft_json("runs") == []
    tui_ft("pause", run.id, code=2)


def test_a_read_only_run_directory(begin: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    """The file system is mounted read-only under a living run, as Linux does after an error of the disk; later it can be written again."""
    row.promise, row.fault, row.cases = PROMISE, "file system read-only under a living run", 1
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(place)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        monkeypatch.setenv("TUI_FT_HOME", str(place))
        run = begin()
        _wait(lambda: len(checkpoints.steps(run)) > 1)
        # A mount cannot become read-only while a file is open for writing: a second, read-only mount is put over it instead.
        subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        refused = tui_ft("pause", run.id, code=1)
        assert "Traceback" not in refused.stderr and "Read-only" in refused.stderr
        assert tui_ft_json("runs")[0]["run"] == run.id
        time.sleep(3)
        subprocess.run(["umount", str(place)], check=True)
        _wait(lambda: summarize(run).state in ("running", "paused", "failed", "lost"))
        if summarize(run).state in ("failed", "lost"):
            control.resume(run)
        step = summarize(run).step
        _wait(lambda: summarize(run).step > step)
        assert tui_ft_json("stop", run.id)["phase"] == "effected"
        assert all(not checkpoints.verify(checkpoints.folder(run, step)) for step in checkpoints.steps(run))
        _wait(lambda: summarize(run).state == "stopped")
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def test_two_supervisors(begin: Callable[..., Run], row: Row) -> None:
    row.promise, row.fault, row.cases = PROMISE, "a second supervisor on one run", 1
    run = begin()
    second = subprocess.run([sys.executable, "-m", "tui_ft.runs.supervisor", str(run.path)], capture_output=True, encoding="utf-8", check=False)
    assert second.returncode == 1 and "another supervisor" in second.stderr
    tui_ft("resume", run.id, "--detach", code=2)
    assert [event["type"] for event in EventReader(run).poll()].count("attempt_started") == 1
    assert tui_ft_json("stop", run.id)["phase"] == "effected"


def test_another_version_between_pause_and_resume(begin: Callable[..., Run], row: Row) -> None:
    """Refused with the library named; accepted when a person says so, and told in the events."""
    row.promise, row.fault, row.cases = PROMISE, "a library's version changed between pause and resume", 1
    run = begin()
    assert tui_ft_json("pause", run.id, "--free-gpu")["phase"] == "effected"
    _wait(lambda: summarize(run).state == "paused")
    for step in checkpoints.steps(run):
        versions = json.loads((checkpoints.folder(run, step) / checkpoints.MANIFEST).read_text())["versions"]
        republish(run, step, lambda _: None, versions={**versions, "peft": "0.1.0"})
    refused = tui_ft("resume", run.id, "--detach", code=2)
    assert "peft" in refused.stderr and "0.1.0" in refused.stderr and "--accept" in refused.stderr
    assert summarize(run).state == "paused" and run.attempt() == 1, "nothing was written"
    tui_ft("resume", run.id, "--detach", "--accept", "all")
    step = summarize(run).step
    _wait(lambda: summarize(run).step > step)
    assert any("peft" in event.get("cause", "") for event in EventReader(run).poll() if event["type"] == "alert")
    assert tui_ft_json("stop", run.id)["phase"] == "effected"


def test_a_reboot(begin: Callable[..., Run], row: Row) -> None:
    """All processes are gone at once, and their numbers belong to others of another boot."""
    row.promise, row.fault, row.cases = PROMISE, "reboot with two runs alive: lost, and all go on with one command", 2
    runs = [begin(), begin()]
    for run in runs:
        for process in reversed(_processes(run)):
            process.kill()
        _wait(lambda run=run: summarize(run).state == "lost")
        owner = json.loads(run.owner_file.read_text())
        run.owner_file.write_text(json.dumps({**owner, "boot_id": "another boot", "pid": os.getpid()}))
        assert summarize(run).state == "lost"
    steps = [summarize(run).step for run in runs]
    resumed = tui_ft_json("resume", "--all-lost")
    assert {entry["run"] for entry in resumed} == {run.id for run in runs}
    for run, step in zip(runs, steps, strict=True):
        _wait(lambda run=run, step=step: summarize(run).step > step)
        assert tui_ft_json("stop", run.id)["phase"] == "effected"


def _processes(run: Run) -> list[psutil.Process]:
    owner = run.owner()
    assert owner
    supervisor = psutil.Process(owner[0].pid)
    return [supervisor, *supervisor.children()]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
