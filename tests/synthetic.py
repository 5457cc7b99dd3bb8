"""Recorded runs made up for tests and pictures: the files a worker and its supervisor would have left."""

from __future__ import annotations

import json
import math
import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from tui_ft import home
from tui_ft.recipe import Plan, Recipe, presets
from tui_ft.runs import checkpoints, identity, store
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run

START = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
GIB = 2**30


class Recorder:
    """Writes events as the worker does, with a clock of its own, and folds them into the progress."""

    def __init__(self, run: Run, attempt: int = 1) -> None:
        self.run = run
        self.attempt = attempt
        self.progress = Progress.read(run)
        self.clock = 0.0
        self.seq = 0
        self.lines: list[str] = []

    def write(self, type_: str, /, after: float = 0.0, **fields: Any) -> None:
        self.clock += after
        t = (START + timedelta(seconds=self.clock)).isoformat(timespec="milliseconds")
        event = {"v": 1, "seq": self.seq, "t": t, "mono": round(self.clock, 3), "type": type_, **fields}
        self.seq += 1
        self.lines.append(json.dumps(event))
        self.progress.apply(event)

    def flush(self) -> None:
        with (self.run.events / f"{self.attempt}.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in self.lines)
        self.lines.clear()
        self.progress.write(self.run)


def recipe(name: str) -> Recipe:
    """The preset of that name, else a recipe of that name on the demo's model and data."""
    if (home.bundled_presets_folder() / f"{name}.yaml").is_file():
        return presets.get(name)
    return Recipe.model_validate({"name": name, "model": {"name": "builtin:demo"}, "data": {"source": "builtin:demo"}})


def new_run(name: str = "phi-2-oasst1-qlora", steps: int | None = None) -> Run:
    """A run that was created and never started."""
    plan = Plan(
        micro_batch=4, accumulation=4, effective_batch=16, precision="bf16", steps=steps, parameters=2_785_679_360, trainable_parameters=10_485_760
    )
    return store.create(recipe(name), plan)


def own(run: Run, alive: bool, attempt: int = 1) -> None:
    """Make this very process the run's supervisor, or one that is gone."""
    who = identity.of(os.getpid())
    if not alive:
        who = who.model_copy(update={"start_ticks": "gone"})
    home.write_atomically(run.owner_file, json.dumps({**who.model_dump(), "attempt": attempt}))


def loss_at(step: int, total: int, noise: random.Random) -> float:
    share = step / total
    return 1.12 + 1.35 * math.exp(-share * 9) + 0.28 * (1 - share) + noise.gauss(0, 0.09) * (1.2 - share * 0.5)


def recorded(state: str = "running", *, steps: int = 400, total: int = 1000, name: str = "phi-2-oasst1-qlora", seed: int = 1) -> Run:
    """A run in `state` (running, paused, finished, stopped, failed, lost, diverged) that has done `steps` of `total` steps."""
    run = new_run(name, total)
    noise = random.Random(seed)
    log = Recorder(run)
    log.write("attempt_started", attempt=1, from_step=0, versions={"torch": "2.13.0"})
    log.write("plan", steps=total, micro_batch=4)
    log.write("progress", after=1, stage="load", done=1, total=1)
    log.write("state", after=14, **{"from": "starting", "to": "running", "reason": ""})
    every = max(1, total // 10)
    broken = round(steps * 0.8) if state == "diverged" else steps + 1
    for step in range(1, steps + 1):
        fine = step < broken
        speed = 3050 + noise.gauss(0, 60) - (700 if step % every < 2 else 0)
        rate = 2e-4 * min(1.0, step / (total * 0.03)) * (0.5 + 0.5 * math.cos(math.pi * step / total))
        log.write(
            "step",
            after=2.7,
            step=step,
            epoch=round(step / total, 4),
            loss=round(loss_at(step, total, noise), 4) if fine else None,
            learning_rate=rate,
            grad_norm=round(0.6 + 1.8 * math.exp(-step / total * 20) + abs(noise.gauss(0, 0.12)), 4) if fine else None,
            tokens=step * 8200,
            tokens_per_second=round(speed, 1),
            memory_bytes=round(7.4 * GIB + noise.random() * 0.2 * GIB),
        )
        if step % every == 0 and fine:
            share = step / total
            log.write("eval", after=9, step=step, loss=round(1.19 + 1.2 * math.exp(-share * 8) + 0.2 * (1 - share), 4), accuracy=0.55 + 0.1 * share)
            log.write("sample", step=step, prompt="What is the capital of France?", text="The capital of France is Paris, on the river Seine.")
            _checkpoint(run, log, step)
    _end(run, log, state, steps, broken)
    log.flush()
    return run


def _checkpoint(run: Run, log: Recorder, step: int) -> None:
    staged = checkpoints.staging(run)
    (staged / "adapter_config.json").write_text("{}", encoding="utf-8")
    (staged / "adapter_model.safetensors").write_bytes(bytes(4096))
    folder = checkpoints.publish(staged, run, step, {"eval_loss": log.progress.last_eval_loss})
    log.write("checkpoint", after=1.2, step=step, path=str(folder), bytes=4096, outcome="published")


def _end(run: Run, log: Recorder, state: str, steps: int, broken: int) -> None:
    own(run, alive=state in ("running", "paused", "diverged"))
    if state == "diverged":
        log.write(
            "alert",
            step=broken,
            kind="diverged",
            severity="error",
            cause=f"the loss is not a number since step {broken}",
            remedy="go back to an earlier checkpoint with a lower learning rate",
        )
    if state in ("paused", "diverged"):
        reason = "asked for; memory is kept" if state == "paused" else "the loss is not a number"
        log.write("state", **{"from": "running", "to": "paused", "reason": reason})
    if state in ("finished", "stopped", "failed"):
        reason = {"finished": "", "stopped": "asked to stop; saved", "failed": "RuntimeError: shape [/INST] is wrong"}[state]
        log.write("state", **{"from": "running", "to": state, "reason": reason})
        log.write("attempt_ended", outcome=state, reason=reason)
        run.write_exit_record(1, {"outcome": state, "reason": reason, "code": 0})
    if state == "finished":
        home.private_folder(run.model)
        (run.model / "adapter_config.json").write_text("{}", encoding="utf-8")
