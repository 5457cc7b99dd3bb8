"""The run directory without a training: what readers make of torn, superseded, damaged and foreign files."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from tui_ft.errors import RequestError
from tui_ft.recipe import Plan, presets
from tui_ft.runs import checkpoints, commands, control, identity, store
from tui_ft.runs.commands import Command
from tui_ft.runs.curves import Curves
from tui_ft.runs.events import EventReader, EventWriter
from tui_ft.runs.progress import Progress, kept_events
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize


@pytest.fixture
def run() -> Run:
    plan = Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32")
    return store.create(presets.open_recipe("demo"), plan)


def own(run: Run, who: identity.Identity, attempt: int = 1) -> None:
    run.owner_file.write_text(json.dumps({**who.model_dump(), "attempt": attempt}))


def test_only_the_owner_can_read(run: Run):
    for path in [run.path, *run.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_finding_a_run(run: Run):
    second = store.create(run.recipe(), run.plan())
    assert second.id != run.id
    assert store.find("latest") == second
    assert store.find(run.id) == run
    with pytest.raises(RequestError, match="any of"):
        store.find("demo")
    with pytest.raises(RequestError, match="no run"):
        store.find("another")
    second.delete()
    assert store.find("demo") == run


def test_a_torn_last_line_is_the_end_and_a_damaged_one_is_skipped(run: Run):
    writer = EventWriter(run, 1)
    writer.write("step", step=1, loss=2.0)
    with writer.file.open("ab") as file:
        file.write(b"\x00\xff not json\n")
    writer.write("step", step=2, loss=float("nan"))
    with writer.file.open("ab") as file:
        file.write(b'{"type": "step", "step": 3, "lo')
    reader = EventReader(run)
    assert [(event["step"], event["loss"]) for event in reader.poll()] == [(1, 2.0), (2, None)]
    with writer.file.open("ab") as file:
        file.write(b'ss": 1.0}\n')
    assert [event["step"] for event in reader.poll()] == [3]
    assert reader.poll() == []


def test_an_attempt_supersedes_later_steps_of_earlier_ones(run: Run):
    first, second = EventWriter(run, 1), EventWriter(run, 2)
    first.write("attempt_started", attempt=1, from_step=0)
    for step in range(1, 8):
        first.write("step", step=step, loss=10.0 - step, tokens=step * 100)
    first.write("eval", step=6, loss=0.5)
    second.write("attempt_started", attempt=2, from_step=4)
    second.write("step", step=5, loss=1.0, tokens=500)
    events = EventReader(run).poll()
    curves = Curves()
    curves.add(events)
    assert list(curves.steps) == [1, 2, 3, 4, 5]
    assert list(curves.loss) == [9, 8, 7, 6, 1]
    assert curves.evals == []
    assert [e["step"] for e in kept_events(events) if e["type"] == "step"] == [1, 2, 3, 4, 5]
    progress = Progress()
    for event in kept_events(events):
        progress.apply(event)
    assert (progress.step, progress.tokens, progress.best_eval_loss) == (5, 500, None)


def test_first_and_last_loss_are_means_of_five_steps(run: Run):
    progress = Progress()
    for step in range(1, 31):
        progress.apply({"type": "step", "step": step, "loss": float(step), "mono": step * 0.5})
    assert progress.first_loss() == 3.0
    assert progress.last_loss() == 28.0
    progress.apply({"type": "unknown", "of": "tomorrow"})


@pytest.mark.parametrize(
    ("alive", "exit_record", "ended", "state"),
    [
        (True, None, False, "running"),
        (True, None, True, "running"),
        (False, None, False, "lost"),
        (False, {"outcome": "paused", "reason": "r"}, True, "paused"),
        (False, {"outcome": "failed", "reason": "r"}, False, "failed"),
        (False, {"outcome": "finished", "reason": "r"}, True, "finished"),
    ],
)
def test_states(run: Run, alive: bool, exit_record: dict | None, ended: bool, state: str):
    assert summarize(run).state == "queued"
    me = identity.of(os.getpid())
    own(run, me if alive else me.model_copy(update={"start_ticks": "another process of that number"}))
    Progress(attempt=1, state="running", ended=ended).write(run)
    if exit_record:
        run.write_exit_record(1, exit_record)
    assert summarize(run).state == state


def test_a_process_is_more_than_its_number():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    who = identity.of(child.pid)
    assert who.is_alive()
    assert not who.model_copy(update={"boot_id": "another boot"}).is_alive()
    assert not who.model_copy(update={"host": "another-machine"}).is_alive()
    child.kill()
    assert not identity.of(child.pid).is_alive() or child.wait()
    child.wait()
    assert not who.is_alive()


def test_commands_of_a_run_without_worker_are_refused(run: Run):
    own(run, identity.of(os.getpid()).model_copy(update={"start_ticks": "gone"}))
    for ask in (control.pause, control.checkpoint, control.stop):
        with pytest.raises(RequestError, match="lost"):
            ask(run)
    with pytest.raises(RequestError, match="no checkpoint at step 7"):
        control.resume(run, from_step=7)
    assert not list((run.commands / "new").iterdir())


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "fast", 10])
def test_learning_rates_that_make_no_sense(run: Run, value: object):
    with pytest.raises(RequestError):
        control.change(run, learning_rate=value)


def test_a_command_is_there_whole_or_not_at_all(run: Run):
    commands.send(run, Command(name="pause", attempt=1))
    (run.commands / "new" / "zz.json").write_text('{"name": "format the disk"')
    read = [item.command for item in commands.pending(run)]
    assert [command and command.name for command in read] == ["pause", None]
    assert not list((run.commands / "tmp").iterdir())


def a_checkpoint(run: Run, step: int):
    staged = checkpoints.staging(run)
    (staged / "model.safetensors").write_bytes(bytes(range(256)) * step)
    (staged / "optimizer.pt").write_bytes(b"state" * step)
    return checkpoints.publish(staged, run, step, {"eval_loss": 1.0 / step})


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "bit flip": _flip,
    "truncation": lambda path: os.truncate(path, path.stat().st_size - 1),
    "removal": lambda path: path.unlink(),
    "zero tail": lambda path: path.write_bytes(path.read_bytes()[:-4] + bytes(4)),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", checkpoints.MANIFEST])
def test_every_damage_is_found_and_the_checkpoint_before_is_used(run: Run, damage: str, file: str):
    for step in (3, 20, 100):
        a_checkpoint(run, step)
    DAMAGES[damage](checkpoints.folder(run, 100) / file)
    newest, notes = checkpoints.newest_valid(run)
    assert newest == checkpoints.folder(run, 20)
    assert len(notes) == 1 and "checkpoint 100" in notes[0]
    assert checkpoints.steps(run) == [3, 20]
    assert len(list(checkpoints.run_quarantine(run).iterdir())) == 1


def test_rotation_keeps_the_newest_by_step_and_the_best(run: Run):
    for step in (9, 100, 20, 30):
        a_checkpoint(run, step)
    os.utime(checkpoints.folder(run, 9))
    checkpoints.rotate(run, keep=2, best=20)
    assert checkpoints.steps(run) == [20, 30, 100]
    assert [info.step for info in checkpoints.listing(run)] == [20, 30, 100]
    assert checkpoints.newest_valid(run, 7) == (None, ["checkpoint 7 is set aside: its manifest is missing"])
