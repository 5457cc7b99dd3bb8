"""A training without torch, for faults by the hundred: real inbox, journal, conductor and checkpoints around a sum of a few numbers.

What it learns depends on every step, on its learning rate and on nothing else, so a step that is left out, done twice, or done with another
learning rate shows in the weights. `expected_weights` gives what a run must end with.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tui_ft.recipe import Plan
from tui_ft.runs import checkpoints, fingerprint
from tui_ft.runs.store import Run, read_json
from tui_ft.worker.conductor import Conductor
from tui_ft.worker.inbox import Inbox
from tui_ft.worker.journal import Journal
from tui_ft.worker.starting import starting_point
from tui_ft.worker.steering import Steering

STEP_SECONDS = 0.002
SIZE = 64


def train(run: Run, plan: Plan, journal: Journal, inbox: Inbox) -> tuple[str, str]:
    """In place of `tui_ft.worker.train.train`: the same moments of the conductor in the same order."""
    recipe = run.recipe()
    checkpoint = starting_point(run, plan, journal)
    conductor = Conductor(run, recipe, journal, inbox, steps_per_epoch=recipe.train.max_steps, has_validation=True, steering=Steering(journal, plan))
    trainer = Trainer(run, journal, conductor, float(recipe.train.learning_rate), int(recipe.train.max_steps))
    if checkpoint:
        trainer.load(checkpoint)
    if trainer.state.global_step < conductor.steering.steps_at(trainer.state.global_step, trainer.state.max_steps):
        trainer.train()
    if conductor.outcome == "finished":
        run.model.mkdir(exist_ok=True)
        (run.model / "weights.json").write_text(json.dumps(trainer.weights))
    return conductor.outcome, conductor.reason or "all steps are done"


def next_weights(weights: list[float], step: int, learning_rate: float) -> list[float]:
    """One step: an order matters, a repetition shows, and floats are exact where they are the same operations."""
    return [value * 0.99 + learning_rate * ((step * 31 + index * 17) % 101) for index, value in enumerate(weights)]


def in_force(changes: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """Of changes in the order in which they were asked for, those that hold in the end, by step.

    After a crash the run goes on from an earlier step. Who then sets a key anew does not want what an older wish set at a later step.
    """
    holding = [
        (step, {key: value for key, value in settings.items() if not any(key in newer and at < step for at, newer in changes[index + 1 :])})
        for index, (step, settings) in enumerate(changes)
    ]
    return sorted(((step, settings) for step, settings in holding if settings), key=lambda change: change[0])


def expected_weights(base: float, max_steps: int, changes: list[tuple[int, dict[str, Any]]]) -> list[float]:
    """The weights of an undisturbed run.

    Args:
        base: the learning rate to begin with.
        changes: (step, settings) in the order in which they were asked for; each holds for the steps after its own.
    """
    changes = in_force(changes)
    weights, rate, last = [1.0] * SIZE, base, max_steps
    for step in range(1, max_steps + 1):
        for at, settings in changes:
            if at == step - 1:
                peak = float(settings.get("learning_rate", base))
                rate, base = (rate * peak / base, peak) if peak != base else (rate, base)  # rounded as the conductor does it
                last = int(settings.get("max_steps", last))
        if step > last:
            break
        weights = next_weights(weights, step, rate)
    return weights


class Trainer:
    """What the conductor wants of a trainer, and no more."""

    def __init__(self, run: Run, journal: Journal, conductor: Conductor, learning_rate: float, max_steps: int) -> None:
        self.run, self.journal, self.conductor = run, journal, conductor
        self.weights = [1.0] * SIZE
        self.model = None
        self.state = SimpleNamespace(global_step=0, max_steps=max_steps, epoch=0.0)
        self.control = SimpleNamespace(should_training_stop=False, should_evaluate=False, should_save=False)
        self.optimizer = SimpleNamespace(param_groups=[{"lr": learning_rate, "initial_lr": learning_rate}])
        self.lr_scheduler = SimpleNamespace(base_lrs=[learning_rate], _last_lr=[learning_rate])
        self.accelerator = SimpleNamespace(scaler=None)
        conductor.trainer = self  # type: ignore[assignment]

    def train(self) -> None:
        state, control = self.state, self.control
        self.conductor.begin(state, control)
        while state.global_step < state.max_steps and not control.should_training_stop:
            control.should_evaluate = control.should_save = False
            time.sleep(STEP_SECONDS)
            self.weights = next_weights(self.weights, state.global_step + 1, self.optimizer.param_groups[0]["lr"])
            state.global_step += 1
            self.conductor.step_end(state, control)
            self.journal.tell("step", step=state.global_step, epoch=0.0, loss=1.0 / state.global_step, learning_rate=self.lr_scheduler._last_lr[0],
                              grad_norm=1.0, tokens=state.global_step * 10, tokens_per_second=10.0, memory_bytes=1)  # fmt: skip
            if control.should_evaluate:
                self.evaluate()
            if control.should_save:
                self._save_checkpoint(None)
            self.conductor.after_step()

    def evaluate(self) -> None:
        self.conductor.evaluated(self.state, self.control, {"eval_loss": 1.0 + abs(self.state.global_step - 40) / 100})

    def _save_checkpoint(self, model: Any) -> None:
        """As the real one: staged, published, and a failure told to the conductor."""
        step = self.state.global_step
        try:
            self.conductor.require_room()
            staged = checkpoints.staging(self.run)
            (staged / "weights.json").write_text(json.dumps(self.weights))
            kept = {"lr": self.optimizer.param_groups[0], "base_lrs": self.lr_scheduler.base_lrs}
            (staged / "optimizer.json").write_text(json.dumps(kept))
            (staged / "filler.bin").write_bytes(bytes([step % 251]) * (1 << 16))
            facts = {"eval_loss": self.conductor.eval_loss_at(step), "attempt": self.journal.attempt, "versions": fingerprint.versions()}
            published = checkpoints.publish(staged, self.run, step, facts)
        except Exception as error:
            checkpoints.discard_staging(self.run)
            self.conductor.save_failed(f"{type(error).__name__}: {error}")
            return
        self.conductor.saved(step, published, 0.0)

    def load(self, checkpoint: Path) -> None:
        self.weights = json.loads((checkpoint / "weights.json").read_text())
        kept = json.loads((checkpoint / "optimizer.json").read_text())
        self.optimizer.param_groups = [kept["lr"]]
        self.lr_scheduler.base_lrs, self.lr_scheduler._last_lr = kept["base_lrs"], [kept["lr"]["lr"]]
        self.state.global_step = int(read_json(checkpoint / checkpoints.MANIFEST)["step"])
