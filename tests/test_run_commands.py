"""Commands over the real inbox and journal, without torch: acknowledged once, answered once, whoever is killed and whatever lies in the folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tui_ft.recipe import Plan, presets
from tui_ft.runs import commands, control, identity, store
from tui_ft.runs.commands import Command, send
from tui_ft.runs.events import Event, EventReader, EventWriter
from tui_ft.runs.store import Run
from tui_ft.worker.inbox import Inbox
from tui_ft.worker.journal import Journal

WRITER = """
import sys, time
from pathlib import Path
from tui_ft.runs.commands import Command, send
from tui_ft.runs.store import Run
for number in range(50):
    send(Run(Path(sys.argv[1])), Command(id=f"{sys.argv[2]}-{number}", name="set", args={"learning_rate": 0.1}, attempt=1))
"""


@pytest.fixture
def run() -> Iterator[Run]:
    """A run without processes; an inbox takes the signals of the process that has it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield store.create(presets.open_recipe("demo"), Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))
    for number, handler in handlers.items():
        signal.signal(number, handler)


def worker(run: Run, attempt: int = 1, restarted: bool = False) -> Inbox:
    """An attempt that begins, as the worker's entry point makes it."""
    journal = Journal(run, attempt, 10, restarted)
    inbox = Inbox(run, journal)
    journal.begin(0, {})
    journal.state("running")
    return inbox


def answers(run: Run) -> list[Event]:
    return [event for event in EventReader(run, only=("command",)).poll() if event["phase"] != "applied"]


def answered(run: Run, command: str) -> list[tuple[str, str]]:
    return [(event["phase"], event["reason"]) for event in answers(run) if event["id"] == command]


def test_four_terminals_at_once_lose_nothing_and_double_nothing(run: Run) -> None:
    inbox = worker(run)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(run.path), name]) for name in "abcd"]
    while any(writer.poll() is None for writer in writers) or any((run.commands / "new").iterdir()):
        inbox.poll()
        for command in inbox.take("set"):
            inbox.tell(command, "effected")
    counted = Counter(event["id"] for event in answers(run))
    assert len(counted) == 200 and set(counted.values()) == {1}
    order = [event["id"] for event in answers(run) if event["id"].startswith("a-")]
    assert order == [f"a-{number}" for number in range(50)]


def test_an_acknowledged_command_that_still_lies_in_the_inbox_is_not_taken_twice(run: Run) -> None:
    """Killed between the acknowledgement and the move."""
    inbox = worker(run)
    asked = send(run, Command(name="set", args={"learning_rate": 0.5}, attempt=1))
    [item] = commands.pending(run)
    inbox.tell(item.command, "applied")
    again = worker(run, 2, restarted=True)
    again.poll()
    assert [command.id for command in again.waiting] == [asked]
    assert not list((run.commands / "new").iterdir())


ALL = {"set": {"learning_rate": 0.5}, "checkpoint": {}, "pause": {"free_gpu": False}, "stop": {"now": False}}


def test_a_restart_by_the_supervisor_takes_over_what_was_asked_for(run: Run) -> None:
    """Acknowledged or not: nobody has changed his mind, and the senders still wait."""
    inbox = worker(run)
    acknowledged = [send(run, Command(name=name, args=args, attempt=1)) for name, args in ALL.items()]
    inbox.poll()
    lying = send(run, Command(name="checkpoint", attempt=1))
    worker(run, 2, restarted=True)  # killed as well before it looked
    third = worker(run, 3, restarted=True)
    third.poll()
    assert [command.id for command in third.waiting] == [*acknowledged, lying]
    assert answers(run) == []


def test_a_persons_resume_answers_old_wishes_and_keeps_changes(run: Run) -> None:
    inbox = worker(run)
    asked = {name: send(run, Command(name=name, args=args, attempt=1)) for name, args in ALL.items()}
    inbox.poll()
    lying = send(run, Command(name="stop", attempt=1))
    resumed = worker(run, 2)
    resumed.poll()
    assert [command.id for command in resumed.waiting] == [asked["set"]]
    assert answered(run, lying)[0][0] == "rejected" and "attempt 1" in answered(run, lying)[0][1]
    for name in ("checkpoint", "pause", "stop"):
        assert answered(run, asked[name]) == [("rejected", "superseded by the resume")]


def test_a_run_that_stood_paused_stands_still_after_a_restart_and_goes_on_after_a_resume(run: Run) -> None:
    worker(run).journal.state("paused", "by request")
    assert worker(run, 2, restarted=True).stand_still
    assert not worker(run, 3).stand_still
    fourth = worker(run, 3)
    fourth.journal.state("paused", "by request")
    waiting = Command(name="resume", attempt=3)
    fourth.tell(waiting, "applied")
    assert not worker(run, 4, restarted=True).stand_still
    assert answered(run, waiting.id) == [("effected", "goes on")]


def test_a_clock_that_is_set_neither_revives_nor_drops_a_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = worker(run)
    fresh, old = Command(name="checkpoint", attempt=1), Command(name="checkpoint", attempt=1, expires=time.time() - 1)
    elsewhere = Command(name="checkpoint", attempt=1, boot="another machine's", expires=time.time() + 60)
    for command in (fresh, old, elsewhere):
        send(run, command)
    now = time.time()
    for step in (86_400.0, -86_400.0):
        monkeypatch.setattr(time, "time", lambda step=step: now + step)
        assert not fresh.is_expired() and old.is_expired()
        assert elsewhere.is_expired() == (step > 0)
    monkeypatch.undo()
    inbox.poll()
    assert [command.id for command in inbox.waiting] == [fresh.id, elsewhere.id]
    assert answered(run, old.id) == [("rejected", "expired before the worker came to it")]


def test_a_resume_of_a_run_that_runs_is_stale(run: Run) -> None:
    inbox = worker(run)
    asked = send(run, Command(name="resume", attempt=1))
    inbox.poll()
    assert answered(run, asked) == [("rejected", "stale: the run is running, not paused")]


def test_whatever_lies_in_the_inbox_is_told_once_and_harms_nothing(run: Run) -> None:
    new = run.commands / "new"
    (new / "a folder").mkdir()
    (new / "a folder" / "within").touch()
    (new / "link").symlink_to("/etc/hostname")
    (new / "\x1b]0;title\x07").write_text("{}")
    (new / "large").write_bytes(b" " * (1 << 20))
    (new / "unknown").write_text('{"name": "format", "attempt": 1}')
    os.mkfifo(new / "pipe")
    inbox = worker(run)
    for _ in range(3):
        inbox.poll()
    asked = send(run, Command(name="set", args={"learning_rate": 0.5}, attempt=1))
    inbox.poll()
    assert [command.id for command in inbox.waiting] == [asked]
    alerts = EventReader(run, only=("alert",)).poll()
    assert len(alerts) == 6 and not any("\x1b" in alert["cause"] for alert in alerts)
    assert not list(new.iterdir())


def test_a_file_that_cannot_be_moved_is_told_once(run: Run) -> None:
    inbox = worker(run)
    (run.commands / "new" / "stranger").mkdir()
    (run.commands / "done" / "stranger").mkdir()
    (run.commands / "done" / "stranger" / "in the way").touch()
    for _ in range(5):
        inbox.poll()
    assert len(EventReader(run, only=("alert",)).poll()) == 1
    assert (run.commands / "new" / "stranger").is_dir()


def test_done_keeps_the_newest_thousand(run: Run) -> None:
    for number in range(1300):
        (run.commands / "done" / f"{number:020d}-1-x.json").touch()
    (run.commands / "tmp" / "torn").touch()
    os.utime(run.commands / "tmp" / "torn", (1, 1))
    worker(run)
    kept = sorted(file.name for file in (run.commands / "done").iterdir())
    assert len(kept) == commands.KEPT_DONE and kept[0].startswith(f"{300:020d}")
    assert not list((run.commands / "tmp").iterdir())


def test_a_line_that_a_killed_writer_tore_is_cut_off(run: Run) -> None:
    EventWriter(run, 1).write("step", step=1, loss=1.0)
    file = run.events / "1.jsonl"
    with file.open("ab") as torn:
        torn.write(b'{"type": "step", "step": 2, "lo')
    EventWriter(run, 1).write("step", step=2, loss=2.0)
    assert [(event["seq"], event["step"]) for event in EventReader(run).poll()] == [(0, 1), (1, 2)]
    file.write_bytes(b"torn from the beginning")
    assert EventWriter(run, 1).seq == 0 and file.read_bytes() == b""


def test_the_wait_for_an_answer_tells_how_long_it_took(run: Run) -> None:
    run.owner_file.write_text(json.dumps({**identity.of(os.getpid()).model_dump(), "attempt": 1}))
    inbox = worker(run)
    asked = control.checkpoint(run)
    seen: list[bool] = []

    def work(acknowledged: bool, seconds: float) -> None:
        seen.append(acknowledged)
        if len(seen) == 2:
            inbox.poll()
        if len(seen) == 5:
            inbox.tell(inbox.take("checkpoint")[0], "effected", "checkpoint 1")

    answer = control.wait(run, asked, 10, work)
    assert answer.phase == "effected" and seen == [False, False, True, True, True]
    assert 0.05 < answer.acknowledged_seconds < answer.seconds < 10
    run.owner_file.write_text(json.dumps({**identity.of(os.getpid()).model_dump(), "start_ticks": "gone", "attempt": 1}))
    ended = control.wait(run, "never sent", 10)
    assert ended.phase == "rejected" and ended.acknowledged_seconds is None
