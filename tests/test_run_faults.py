"""What a run survives: its terminal, its worker, its supervisor being killed; a loss that is no number; a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from runs import COMMAND, SMALL_LORA, start, tui_ft, tui_ft_json, wait_for, wait_for_state, wait_for_step, weights, worker_pid

from tui_ft.runs import checkpoints, control, store
from tui_ft.runs.commands import Command, send
from tui_ft.runs.events import EventReader
from tui_ft.runs.summary import summarize

STEPS = ["--set", "train.max_steps=40", "--set", "evaluate.every=never", "--set", "checkpoints.every=5"]


def test_the_run_outlives_its_terminal():
    """SIGKILL for whoever follows it, SIGHUP for its process group: the run hears of neither."""
    follower = subprocess.Popen([*COMMAND, "run", *SMALL_LORA, *STEPS], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True)  # fmt: skip
    while not store.all_runs():
        assert follower.poll() is None, follower.stderr.read()
    run = store.find("latest")
    wait_for_step(run, 2)
    os.killpg(follower.pid, signal.SIGHUP)
    os.kill(follower.pid, signal.SIGKILL)
    follower.communicate()
    finished = wait_for_state(run, "finished")
    assert finished.step == 40
    assert (run.report / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_worker_is_started_again_from_its_checkpoint():
    run = start(*SMALL_LORA, *STEPS)
    wait_for(run, lambda summary: bool(summary.checkpoints))
    os.kill(worker_pid(run), signal.SIGKILL)
    finished = wait_for_state(run, "finished")
    assert finished.attempt == 2
    assert run.exit_record(1)["signal"] == signal.SIGKILL
    started = [event for event in EventReader(run).poll() if event["type"] == "attempt_started"]
    assert started[1]["from_step"] >= 5 and started[1]["from_step"] % 5 == 0


def test_worker_and_supervisor_killed_is_lost_and_resumes():
    run = start(*SMALL_LORA, *STEPS)
    wait_for(run, lambda summary: bool(summary.checkpoints))
    os.kill(run.owner()[0].pid, signal.SIGKILL)  # its worker dies with it
    wait_for_state(run, "lost")
    listed = tui_ft_json("runs")
    assert [entry["state"] for entry in listed] == ["lost"]
    tui_ft("pause", run.id, code=2)
    resumed = tui_ft_json("resume", run.id)
    assert resumed["state"] == "finished" and resumed["step"] == 40
    assert [e["from_step"] for e in EventReader(run).poll() if e["type"] == "attempt_started"][1] >= 5


def test_a_damaged_checkpoint_is_set_aside():
    run = start(*SMALL_LORA, *STEPS)
    wait_for(run, lambda summary: len(summary.checkpoints) > 1)
    control.wait(run, control.stop(run))
    stopped = wait_for_state(run, "stopped")
    newest = checkpoints.folder(run, stopped.checkpoints[-1].step)
    optimizer = newest / "optimizer.pt"
    data = bytearray(optimizer.read_bytes())
    data[len(data) // 2] ^= 1
    optimizer.write_bytes(data)
    resumed = tui_ft_json("resume", run.id)
    assert resumed["state"] == "finished"
    events = EventReader(run).poll()
    assert [e["from_step"] for e in events if e["type"] == "attempt_started"][1] == stopped.checkpoints[-2].step
    assert any("optimizer.pt was changed" in e["cause"] for e in events if e["type"] == "alert")
    assert list((run.checkpoints / "quarantine").iterdir())


def test_stale_and_expired_commands_are_refused():
    run = start(*SMALL_LORA, *STEPS, "--set", "train.max_steps=200")
    wait_for_step(run, 1)
    stale = send(run, Command(name="stop", args={"now": True}, attempt=7))
    expired = send(run, Command(name="stop", args={"now": True}, attempt=1, expires=1.0))
    assert control.wait(run, stale).phase == control.wait(run, expired).phase == "rejected"
    (run.commands / "new" / "00-stranger.json").write_text("{")
    answer = tui_ft_json("set", run.id, "learning_rate=1e-4")
    assert answer["phase"] == "effected" and 0 < answer["acknowledged_seconds"] <= answer["seconds"] < 60
    assert not list((run.commands / "new").iterdir())
    tui_ft("set", run.id, "train.seed=3", code=2)
    tui_ft("stop", run.id, "--now")
    assert wait_for_state(run, "stopped").reason.startswith("stopped at once")


def test_a_loss_that_is_no_number_pauses_the_run_before_it_is_saved():
    run = start(*SMALL_LORA, *STEPS, "--set", "train.learning_rate=9.9", "--set", "train.max_grad_norm=0", "--set", "method.alpha=100000",
                "--set", "train.warmup=0", "--set", "checkpoints.every=1", "--set", "checkpoints.keep=100")  # fmt: skip
    paused = wait_for_state(run, "paused")
    assert "no number" in paused.reason and "--set learning_rate=0.99" in paused.reason
    [alert] = [alert for alert in paused.alerts if alert.kind == "diverged"]
    assert (alert.severity, alert.key) == ("error", "train.learning_rate")
    assert alert.cause in tui_ft("show", run.id).stdout
    [ended] = [event for event in EventReader(run).poll() if event["type"] == "attempt_ended"]
    assert (ended["outcome"], ended["cause"]) == ("paused", "not-finite")
    assert all(checkpoint.step < paused.step for checkpoint in paused.checkpoints)
    assert all(np.isfinite(np.frombuffer(tensor, np.float32)).all() for c in paused.checkpoints for tensor in weights(Path(c.path)).values())
    assert paused.model is None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_pauses_the_run_until_there_is_room(tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(small)], capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        (small / "cache").symlink_to(tmp_path / "cache")  # the demo's model need not fit
        (tmp_path / "cache").mkdir()
        monkeypatch.setenv("TUI_FT_HOME", str(small))
        run = start("demo", "--set", "train.max_steps=60", "--set", "checkpoints.every=20", "--set", "checkpoints.keep=1",
                    "--set", "evaluate.every=never")  # fmt: skip
        wait_for(run, lambda summary: bool(summary.checkpoints))
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError):  # a buffer would fail once more when it is closed
            while True:
                file.write(bytes(1 << 16))
        os.truncate(filler, filler.stat().st_size - (2 << 20))  # room to tell of it, none for a checkpoint
        paused = wait_for(run, lambda summary: summary.state == "paused")
        assert paused.reason.startswith("the disk is full: ") and str(run.checkpoints) in paused.reason
        assert "there is room" in paused.reason
        worker = worker_pid(run)
        assert "nothing can be saved" in tui_ft_json("stop", run.id, code=1)["reason"]
        assert tui_ft_json("set", run.id, "learning_rate=1e-4")["phase"] == "effected"
        assert control.wait(run, control.resume(run)).phase == "rejected"
        assert checkpoints.newest_valid(run)[0] is not None
        filler.unlink()
        wait_for(run, lambda summary: summary.state == "running" and not summary.alerts)
        assert worker_pid(run) == worker
        assert wait_for_state(run, "finished").step == 60
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
    assert summarize(run).state
