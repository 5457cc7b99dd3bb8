"""Resume is exact: whatever interrupts a run, its final weights are those of a run that nothing interrupted."""

from __future__ import annotations

import shutil

import pytest
from runs import SMALL_LORA, start, tui_ft, tui_ft_json, wait_for, wait_for_state, wait_for_step, weights, worker_pid

from tui_ft.runs import control
from tui_ft.runs.events import EventReader

EPOCH = 19
STEPS = ["--set", "train.max_steps=44", "--set", "evaluate.every=7", "--set", "checkpoints.every=50"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The final weights of the run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUI_FT_HOME", str(folder))
        summary = tui_ft_json("run", *SMALL_LORA, *STEPS)
        assert summary["state"] == "finished"
        return weights(folder / "runs" / summary["run"] / "model")


def test_pause_that_frees_the_memory(undisturbed):
    run = start(*SMALL_LORA, *STEPS)
    wait_for_step(run, 1)
    first = worker_pid(run)
    wait_for_step(run, 21)
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


def test_pause_that_keeps_the_memory(undisturbed):
    run = start(*SMALL_LORA, *STEPS)
    wait_for_step(run, 2)
    assert tui_ft_json("pause", run.id)["phase"] == "effected"
    worker = worker_pid(run)
    paused = wait_for_state(run, "paused")
    assert tui_ft_json("checkpoint", run.id)["phase"] == "effected"
    assert tui_ft_json("resume", run.id, "--detach") == {"run": run.id, "dir": str(run.path)}
    wait_for_step(run, paused.step + 1)
    assert worker_pid(run) == worker
    wait_for_state(run, "finished")
    assert weights(run.model) == undisturbed


def test_stop_and_save_where_an_evaluation_was_due(undisturbed):
    """The stop leaves the evaluation out; resume makes it, and the random numbers stay in step."""
    run = start(*SMALL_LORA, *STEPS)
    wait_for_step(run, 6)
    control.wait(run, control.stop(run))
    stopped = wait_for_state(run, "stopped")
    tui_ft("resume", run.id)
    assert weights(run.model) == undisturbed
    evaluated = [event["step"] for event in EventReader(run).poll() if event["type"] == "eval"]
    assert evaluated == [7, 14, 21, 28, 35, 42, 44]
    assert stopped.checkpoints


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


def test_learning_rate_changed_before_a_crash_is_changed_again(tmp_path):
    """A change that took effect after the checkpoint that is resumed from is made again, at the same step."""
    run = start(*SMALL_LORA, "--set", "train.max_steps=30", "--set", "checkpoints.every=4", "--set", "evaluate.every=never")
    wait_for_step(run, 5)
    changed = tui_ft_json("set", run.id, "learning_rate=1e-5")
    assert changed["phase"] == "effected"
    wait_for_step(run, changed["step"] + 1)
    tui_ft("stop", run.id, "--now")
    stopped = wait_for_state(run, "stopped")
    resumed_from = max(c.step for c in stopped.checkpoints)
    before = {e["step"]: e["learning_rate"] for e in EventReader(run).poll() if e["type"] == "step"}
    tui_ft("resume", run.id)
    after = {e["step"]: e["learning_rate"] for e in EventReader(run).poll() if e["type"] == "step" and e["attempt"] == 2}
    again = [step for step in before if step > resumed_from]
    assert all(after[step] == pytest.approx(before[step]) for step in again)
    assert after[changed["step"] + 1 if changed["step"] >= resumed_from else resumed_from + 1] < 1.1e-5
    wait_for(run, lambda summary: summary.state == "finished")


def test_a_worker_killed_after_its_last_step_only_writes_the_model(undisturbed):
    """The library would train one step more."""
    run = start(*SMALL_LORA, *STEPS)
    wait_for(run, lambda summary: any(checkpoint.step == 44 for checkpoint in summary.checkpoints) or summary.state == "finished")
    wait_for_state(run, "finished")
    shutil.rmtree(run.model)
    (run.path / "exit" / "1.json").unlink()  # as if killed before the model was written
    tui_ft("resume", run.id)
    assert weights(run.model) == undisturbed
    assert not [event for event in EventReader(run).poll() if event["type"] == "step" and event["attempt"] == 2]
