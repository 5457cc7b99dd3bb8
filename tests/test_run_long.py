"""A run of very many steps: its events, its readers and the start of its next attempt stay small."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest

from tui_ft.recipe import Plan, presets
from tui_ft.runs import store
from tui_ft.runs.curves import POINTS, Curves
from tui_ft.runs.events import Event, EventReader, is_kept
from tui_ft.runs.store import Run
from tui_ft.worker.history import History
from tui_ft.worker.journal import Journal

SLOW = bool(os.environ.get("TUI_FT_SLOW"))
STEPS = 1_000_000 if SLOW else 120_000
SPIKE = 77_777


def step(number: int) -> Event:
    loss = 40.0 if number == SPIKE else 2.0 + math.sin(number)
    return {"type": "step", "step": number, "epoch": number / 1000, "loss": loss, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens": number * 100,
            "tokens_per_second": 1000.0, "memory_bytes": 1 << 30}  # fmt: skip


def in_a_process_of_its_own(run: Run, code: str) -> dict[str, Any]:
    """What `code` finds as `told`, the seconds of processor time that it takes, and by how much the process grows."""
    script = f"""
import json, resource, sys, time
from tui_ft.runs.store import Run
from tui_ft.tui.feed import Feed
from tui_ft.worker.journal import Journal
run = Run(__import__("pathlib").Path(sys.argv[1]))
before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
{code}
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({{"told": told, "seconds": time.process_time() - begun, "megabytes": grown}}))
"""
    done = subprocess.run([sys.executable, "-c", script, str(run.path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_million_steps_stay_small(capsys: pytest.CaptureFixture[str]) -> None:
    """120 000 of them, unless TUI_FT_SLOW=1."""
    run = store.create(presets.open_recipe("demo"), Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))
    journal = Journal(run, 1, 10)
    journal.begin(0, {})
    for number in range(1, STEPS + 1):
        event = step(number)
        journal.tell(event.pop("type"), **event)
        if number % 5_000 == 0:
            journal.tell("eval", step=number, loss=1.0 + abs(number - 100_000) / 1e6, accuracy=0.5)
    log = capsys.readouterr().out
    assert journal.progress.step == STEPS
    assert (run.events / "1.jsonl").stat().st_size < 60 << 20
    assert len(log) < 4 << 20

    last = STEPS - 5_003  # not one that is written
    resumed = in_a_process_of_its_own(run, f"journal = Journal(run, 2, 10); journal.begin({last}, {{}}); progress = journal.progress; "
                                      "told = [progress.step, progress.tokens, journal.past.evaluations.best_step]")  # fmt: skip
    assert resumed["told"][0] == last and last - 10 < resumed["told"][1] / 100 <= last and resumed["told"][2] == 100_000
    assert resumed["seconds"] < 3
    assert resumed["megabytes"] < 10, "the history of a run never lies in memory"
    read = in_a_process_of_its_own(run, "feed = Feed(run)\nwhile feed.look().more: pass\ntold = len(feed.curves.steps)")
    assert read["told"] <= POINTS and read["megabytes"] < 30

    curves = Curves()
    curves.add(EventReader(run).stream())
    assert last - 10 * curves.stride <= curves.steps[-1] <= last
    assert max(curves.highest) == 40.0 and max(curves.loss) < 40.0
    assert list(curves.steps) == sorted(set(curves.steps))


def test_the_step_before_a_checkpoint_is_always_written() -> None:
    run = store.create(presets.open_recipe("demo"), Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))
    journal = Journal(run, 1, 10)
    journal.begin(0, {})
    for number in (100_001, 100_002, 100_003):
        event = step(number)
        journal.tell(event.pop("type"), **event)
    journal.tell("checkpoint", step=100_003, path="", bytes=1, outcome="published")
    assert [event["step"] for event in EventReader(run, only=("step",)).poll()] == [100_003]
    assert History.read(run).measure(run, 100_003).tokens == 10_000_300
    assert [number for number in (99_999, 100_000, 100_001, 100_010, 999_990, 1_000_010, 1_000_100) if is_kept(number)] == [
        99_999, 100_000, 100_010, 999_990, 1_000_100,
    ]  # fmt: skip


def test_points_that_stand_for_several_steps_keep_mean_and_reach() -> None:
    curves = Curves()
    count = 2 * POINTS + 17
    curves.add(step(number) for number in range(1, count + 1))
    assert curves.stride == 4 and len(curves.steps) <= POINTS
    assert list(curves.steps[:3]) == [4, 8, 12] and curves.steps[-1] == count
    first = [step(number)["loss"] for number in range(1, 5)]
    assert curves.loss[0] == pytest.approx(sum(first) / 4) and (curves.lowest[0], curves.highest[0]) == (min(first), max(first))
    curves.add([{"type": "attempt_started", "from_step": 1_000}, step(1_001)])
    assert list(curves.steps[-2:]) == [1_000, 1_001]
    nothing = Curves()
    nothing.add({**step(number), "loss": None} for number in range(1, count))
    assert all(math.isnan(value) for series in (nothing.loss, nothing.lowest, nothing.highest) for value in series)
