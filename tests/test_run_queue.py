"""The queue: in order, no device twice, also when supervisors are killed; and what a person reads and does meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from waiting import CARD, GIB, Waiters, let_go, until, until_state

from tui_ft.cli import main
from tui_ft.errors import RequestError
from tui_ft.hardware import GpuReading, Hardware
from tui_ft.runs import control, devices, queue, store
from tui_ft.runs.devices import Busy, Device
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize


def place(run: Run) -> tuple[str, str]:
    summary = summarize(run)
    return summary.state, summary.reason


def cli(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code
    return capsys.readouterr().out


def test_first_come_first_served_and_never_two_at_once_over_kills(waiters: Waiters) -> None:
    """Twelve wait; two are killed while they wait, two while their worker runs."""
    dice = random.Random(5)
    holder = queue.take_at_once(waiters.create(queued=False), waiters.create(queued=False).plan())
    assert isinstance(holder, Device)
    runs = [waiters.start() for _ in range(12)]
    assert [summarize(run).queue_position for run in runs] == list(range(1, 13))
    picked = dice.sample(runs[1:], 4)
    in_waiting, at_work = set(picked[:2]), set(picked[2:])
    for run in in_waiting:
        os.kill(run.owner()[0].pid, signal.SIGKILL)
        until_state(run, "lost")
    holder.release()
    killed = {}
    for run in sorted(at_work, key=runs.index):
        until(lambda run=run: run.id in waiters.began())
        killed[run.id] = time.monotonic()
        os.kill(run.owner()[0].pid, signal.SIGKILL)
    for run in set(runs) - in_waiting - at_work:
        until_state(run, "finished")
    expected = [run.id for run in runs if run not in in_waiting]
    assert waiters.began() == expected
    begins, ends = ({item["run"]: item["t"] for item in waiters.told() if item["what"] == what} for what in ("begin", "end"))
    for before, after in itertools.pairwise(expected):
        assert begins[after] >= killed.get(before, 0) and begins[after] >= ends.get(before, killed.get(before)), (before, after)
    assert queue.listing() == []


def test_a_queued_run_waits_for_the_others_and_those_see_it(waiters: Waiters, capsys: pytest.CaptureFixture[str]) -> None:
    plain = [waiters.start(queued=False, hold=True) for _ in range(2)]  # on a processor plain runs may stand side by side
    until(lambda: len(waiters.began()) == 2)
    first, second, third = (waiters.start(hold=True) for _ in range(3))
    assert place(first) == ("queued", f"waiting for the CPU: {plain[1].id} holds it")
    assert place(second) == ("queued", "2nd in the queue")
    assert cli(capsys, "queue", "move", third.id, "1") == f"{third.id} is now 1st in the queue.\n"
    until(lambda: [summarize(run).queue_position for run in (third, first, second)] == [1, 2, 3])
    listed = json.loads(cli(capsys, "queue", "--json"))
    assert [(entry["position"], entry["run"], entry["device"]) for entry in listed] == [
        (1, third.id, "cpu"), (2, first.id, "cpu"), (3, second.id, "cpu"),
    ]  # fmt: skip
    assert "2nd in the queue" in cli(capsys, "queue") and third.id in cli(capsys, "status")
    cli(capsys, "rm", third.id, "--yes", code=2)
    cli(capsys, "pause", third.id, code=2)
    cli(capsys, "resume", third.id, code=2)
    assert json.loads(cli(capsys, "queue", "cancel", first.id, "--json")) == {"run": first.id, "cancelled": True}
    assert until_state(first, "stopped").reason == "cancelled while it waited"
    cli(capsys, "queue", "cancel", first.id, code=2)
    for run in plain:
        let_go(run)
    until(lambda: waiters.began()[2:] == [third.id])
    with pytest.raises(RequestError, match=r"the CPU is in use by"):
        queue.check_free(waiters.create(queued=False).plan())
    control.resume(first)  # it was begun in the queue, so it goes back there
    assert place(first) == ("queued", "2nd in the queue")
    assert cli(capsys, "stop", second.id).endswith("it waited in the queue and is out of it\n")
    let_go(third)
    let_go(first)
    until_state(first, "finished")
    assert until_state(second, "stopped").queue_position is None


def test_a_pause_that_keeps_the_memory_says_who_waits_for_it(waiters: Waiters) -> None:
    run = waiters.start(hold=True)
    until(waiters.began)
    Progress(attempt=1, state="paused", reason="asked for").write(run)
    assert place(run) == ("paused", "asked for")
    waiters.start()
    assert place(run) == ("paused", "asked for; it keeps the CPU, and another run waits for it")
    waiters.start()
    assert place(run) == ("paused", "asked for; it keeps the CPU, and 2 runs wait for it")


def test_who_follows_a_queued_run_takes_it_out_by_ctrl_c(waiters: Waiters) -> None:
    holder = waiters.start(hold=True)
    until(waiters.began)
    stopped = waiters.start()
    queue.cancel(stopped)
    until_state(stopped, "stopped")
    command = [sys.executable, "-m", "tui_ft", "resume", stopped.id]
    follower = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    assert follower.stderr is not None
    assert "waiting for the CPU" in follower.stderr.readline(), "it follows, so it listens"
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=30)
    assert follower.returncode == 3 and "taken out of the queue" in err and "cancelled while it waited" in out
    assert summarize(holder).state == "starting"


def test_who_finds_the_device_taken_says_so_and_who_forces_shares_it(waiters: Waiters) -> None:
    holder = waiters.start(hold=True)
    until(waiters.began)
    late = waiters.start(queued=False)  # as when two begin at the same moment: the look before the start saw it free
    reason = until_state(late, "stopped").reason
    assert f"{holder.id} holds it" in reason and f"tui-ft resume {late.id} --queue" in reason
    forced = waiters.start(queued=False, shared=True)
    until_state(forced, "finished")
    assert summarize(holder).state != "finished"
    assert control.resume(late, queued=True) is None
    assert summarize(late).queue_position == 1


def test_a_gpu_is_waited_for_by_its_memory_and_any_equal_one_will_do(waiters: Waiters) -> None:
    waiters.driver()
    waiters.cards(3.1, 2, processes=((os.getpid(), 6 * GIB),))
    run = waiters.start(card=0, hold=True)
    me = psutil.Process()
    assert place(run) == ("queued", f"waiting for GPU 0: 3.1 GiB of 4.0 GiB free; {me.name()} ({me.username()}, pid {me.pid}) holds 6.0 GiB")
    waiters.cards(3.1, 9)
    until(lambda: waiters.began() == [run.id])
    assert (run.plan().gpu.uuid, run.plan().gpu.index) == ("GPU-1", 1)
    waiters.cards(9, 9)
    asks_more, behind = waiters.start(card=1, when_free=10 * GIB), waiters.start(card=1)
    assert place(asks_more) == ("queued", "waiting for GPU 1: 9.0 GiB of 10.0 GiB free")
    assert place(behind) == ("queued", "2nd in the queue"), "only the first of those that wait for such a card may take it"
    waiters.cards(10, 9)
    until_state(asks_more, "finished")
    until_state(behind, "finished")
    assert asks_more.plan().gpu.uuid == "GPU-0"
    assert run.id not in [item["run"] for item in waiters.told() if item["what"] == "end"]
    let_go(run)
    until_state(run, "finished")


def test_a_run_for_another_card_does_not_stand_in_the_way(waiters: Waiters) -> None:
    waiters.driver()
    waiters.cards(0, 10, names=("Other", CARD))
    other, mine = waiters.start(card=0, name="Other"), waiters.start(card=1)
    until_state(mine, "finished")
    assert summarize(other).queue_position == 1
    os.kill(other.owner()[0].pid, signal.SIGTERM)
    assert until_state(other, "stopped").reason == "asked to end while it waited"
    assert control.lost_runs() == [other], "the system ended it, as before a reboot: --all-lost goes on with it"


def test_a_plain_run_is_refused_a_gpu_in_use(tui_ft_home: Path, waiters: Waiters) -> None:
    machine = Hardware(gpus=(GpuReading(0, "GPU-0", CARD, (8, 0), 10 * GIB, 10 * GIB, None, None, None),))
    plan = waiters.create(queued=False, card=0).plan()
    assert devices.would_be_busy(plan, machine) is None
    held = devices.take(waiters.create(card=0), plan, machine)
    assert isinstance(held, Device) and os.get_inheritable(held.handle) is False
    busy = devices.would_be_busy(plan, machine)
    assert busy and busy.holder.startswith("demo-")
    assert isinstance(devices.take(waiters.create(card=0), plan, machine), Busy)
    held.release()
    assert devices.would_be_busy(plan, machine) is None


def test_what_can_never_be_is_refused_at_once(waiters: Waiters, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["run", "demo", "--when-free", "1GiB"]) == 2
    assert "belongs to --queue" in capsys.readouterr().err
    waiters.driver()
    waiters.cards(10)
    monkeypatch.syspath_prepend(waiters.folder)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert main(["run", "demo", "--queue", "--when-free", "11GiB"]) == 2
    assert "11.0 GiB can never be free: Card 10 has 10.0 GiB in all" in capsys.readouterr().err
    holder = waiters.start(card=0, hold=True)
    until(waiters.began)
    assert main(["run", "demo"]) == 2
    assert f"GPU 0 (Card 10) is in use by {holder.id}\n  → --queue waits for it, --force shares it." in capsys.readouterr().err
    assert store.all_runs() == [holder]
    monkeypatch.delitem(sys.modules, "pynvml")


def test_a_lost_queue_file_is_made_anew_in_order(waiters: Waiters, tui_ft_home: Path) -> None:
    holder = queue.take_at_once(waiters.create(queued=False), waiters.create(queued=False).plan())
    runs = [waiters.start() for _ in range(3)]
    queue.move(runs[2], 1)
    until(lambda: [summarize(run).queue_position for run in runs] == [2, 3, 1])
    (tui_ft_home / "queue" / "queue.json").write_text("[{]")
    until(lambda: [entry.run for entry in queue.listing()] == [runs[2].id, runs[0].id, runs[1].id])
    holder.release()
    for run in runs:
        until_state(run, "finished")
    assert waiters.began() == [runs[2].id, runs[0].id, runs[1].id]
