"""SIGKILL at random instants of a real training under its real supervisor; the end is compared with a training that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import tiny_models
from in_process import small_recipe, state_of, train_in_process
from ledger import SEED, Row, scaled
from runs import weights

from tui_ft.planning.planner import make_plan
from tui_ft.runs import checkpoints, control, launch, store
from tui_ft.runs.commands import Command, send
from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize
from tui_ft.worker.conductor import Conductor

sys.path.append(str(Path(__file__).parent / "standin"))
from standin_training import in_force

STEPS = 20_000
START_SECONDS = 8.0
"""Imports, preparation and loading: three kills in ten come while these last."""
TRAINING_SECONDS = 2.0
"""Training, with its saves and evaluations: the others come while it lasts."""


@pytest.mark.parametrize("number", range(scaled(4, 1)))
def test_random_kills_of_a_real_training(tmp_path: Path, number: int, row: Row) -> None:
    row.promise, row.fault = "no acknowledged command lost or doubled", "SIGKILL at random instants of a real training"
    chance = random.Random(SEED + number)
    recipe = small_recipe(
        tiny_models.llama(tmp_path / "llama"), tmp_path,
        method={"dropout": 0.1}, train={"max_steps": STEPS}, evaluate={"every": 50}, checkpoints={"every": 10},
    )  # fmt: skip
    run = store.create(recipe, make_plan(recipe))
    launch.start(run)
    for _ in range(scaled(10, 2)):
        _kill(run, chance)
        row.cases += 1
    _wait(run, lambda: summarize(run).state == "running" and summarize(run).step > 10)
    _change(run, max_steps=summarize(run).step + 100)
    _wait(run, lambda: summarize(run).state == "finished")

    commands = [event for event in EventReader(run).poll() if event["type"] == "command"]
    answered = [event["id"] for event in commands if event["phase"] in ("effected", "rejected")]
    assert len(answered) == len(set(answered)), "no command took effect twice"
    assert {event["id"] for event in commands if event["phase"] == "applied"} == set(answered), "no acknowledged command is lost"
    assert all(not checkpoints.verify(checkpoints.folder(run, step)) for step in checkpoints.steps(run))
    changes = in_force([(event["step"], event["args"]) for event in commands if event["phase"] == "effected"])
    with _changing(changes):
        undisturbed = train_in_process(recipe)
    assert state_of(undisturbed).startswith("finished"), state_of(undisturbed)
    assert weights(run.model) == weights(undisturbed.model)
    row.note = "final weights those of an undisturbed run with the same commands"


def _kill(run: Run, chance: random.Random) -> None:
    """Worker or supervisor, at an instant drawn; a learning rate may be on its way. What was killed is on its feet again afterwards."""
    if chance.random() < 0.3:
        time.sleep(chance.uniform(0.2, START_SECONDS))
    else:
        _wait(run, lambda: summarize(run).state == "running")
        if chance.random() < 0.7:
            _send(run, learning_rate=round(chance.uniform(1e-3, 2e-2), 6))
        time.sleep(chance.uniform(0.0, TRAINING_SECONDS))
    owner = run.owner()
    assert owner
    if chance.random() < 0.3:
        os.kill(owner[0].pid, signal.SIGKILL)
        _wait(run, lambda: summarize(run).state == "lost")
        control.resume(run)
        return
    worker = json.loads(run.owner_file.read_text()).get("worker_pid")
    if worker:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        _wait(run, lambda: run.attempt() > owner[1] or summarize(run).state == "failed")
        if summarize(run).state == "failed":  # killed four times before it came to a checkpoint
            control.resume(run)


def _send(run: Run, **settings: Any) -> None:
    with suppress(Exception):  # it may just have been killed: who cannot send has sent nothing
        control.change(run, **settings)


def _change(run: Run, **settings: Any) -> None:
    answer = control.wait(run, control.change(run, **settings), 60)
    assert answer.phase == "effected", answer


def _wait(run: Run, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        summary = summarize(run)
        assert time.monotonic() < deadline, summary
        time.sleep(0.05)


@contextmanager
def _changing(changes: list[tuple[int, dict[str, Any]]]) -> Iterator[None]:
    """Send the same commands at the same steps, just before the worker looks into its inbox."""
    step_end = Conductor.step_end

    def changing(self: Conductor, state: Any, control: Any) -> None:
        for at, args in changes:
            if at == state.global_step:
                send(self.run, Command(name="set", args=args, attempt=1))
        step_end(self, state, control)

    with patch.object(Conductor, "step_end", changing):
        yield
