"""Resume is exact: whatever interrupts a run, its final weights are those of a run that nothing interrupted.

Here through the command line and real workers; `test_resume_exact.py` stops trainings of every kind, and `tests/faults` kills them.
"""

from __future__ import annotations

import shutil

import pytest
from runs import SMALL_LORA, start, tui_ft, tui_ft_json, wait_for_state, wait_for_step, weights, worker_pid

from tui_ft.runs import control, store
from tui_ft.runs.events import EventReader

EPOCH = 19
STEPS = ["--set", "train.max_steps=44", "--set", "evaluate.every=7", "--set", "checkpoints.every=50"]


@pytest.fixture(scope="module")
def home_of_undisturbed(tmp_path_factory):
    """A home with one run, which nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUI_FT_HOME", str(folder))
        assert tui_ft_json("run", *SMALL_LORA, *STEPS)["state"] == "finished"
    return folder


@pytest.fixture(scope="module")
def undisturbed(home_of_undisturbed):
    """The final weights of the run that nothing interrupted."""
    [model] = home_of_undisturbed.glob("runs/*/model")
    return weights(model)


def test_pauses_that_keep_and_that_free_the_memory(undisturbed):
    """One after the other, in one run: the first goes on in the same worker, the second in the next."""
    run = start(*SMALL_LORA, *STEPS)
    wait_for_step(run, 2)
    assert tui_ft_json("pause", run.id)["phase"] == "effected"
    first = worker_pid(run)
    paused = wait_for_state(run, "paused")
    assert tui_ft_json("checkpoint", run.id)["phase"] == "effected"
    assert tui_ft_json("resume", run.id, "--detach") == {"run": run.id, "dir": str(run.path)}
    wait_for_step(run, max(21, paused.step + 1))
    assert worker_pid(run) == first

    assert control.wait(run, control.pause(run, free_gpu=True)).phase == "effected"
    paused = wait_for_state(run, "paused")
    assert EPOCH < paused.step < 2 * EPOCH, "paused in the middle of the second epoch"
    tui_ft_json("resume", run.id, "--detach")
    wait_for_step(run, paused.step + 1)
    assert worker_pid(run) != first
    finished = wait_for_state(run, "finished")
    assert finished.step == 44
    assert weights(run.model) == undisturbed
    started = [event for event in EventReader(run).poll() if event["type"] == "attempt_started"]
    assert [event["from_step"] for event in started] == [0, paused.step]


def test_going_back_to_an_earlier_checkpoint(undisturbed):
    """The later ones are set aside, else a resume would fall back into the past that was given up."""
    run = start(*SMALL_LORA, *STEPS, "--set", "checkpoints.every=5", "--set", "checkpoints.keep=9")
    wait_for_step(run, 21)
    control.wait(run, control.stop(run))
    stopped = wait_for_state(run, "stopped")
    tui_ft("resume", run.id, "--from", "3", code=2)
    tui_ft("resume", run.id, "--from", "10")
    assert weights(run.model) == undisturbed
    events = EventReader(run).poll()
    assert [event["from_step"] for event in events if event["type"] == "attempt_started"] == [0, 10]
    aside = {int(place.name.split("-")[1]) for place in (run.checkpoints / "quarantine").iterdir()}
    assert aside == {checkpoint.step for checkpoint in stopped.checkpoints if checkpoint.step > 10}


def test_a_worker_killed_after_its_last_step_only_writes_the_model(undisturbed, home_of_undisturbed, tmp_path, monkeypatch):
    """The library would train one step more."""
    shutil.copytree(home_of_undisturbed, tmp_path / "copy")
    monkeypatch.setenv("TUI_FT_HOME", str(tmp_path / "copy"))
    [run] = store.all_runs()
    shutil.rmtree(run.model)
    (run.path / "exit" / "1.json").unlink()  # as if killed before the model was written
    tui_ft("resume", run.id)
    assert weights(run.model) == undisturbed
    assert not [event for event in EventReader(run).poll() if event["type"] == "step" and event["attempt"] == 2]
