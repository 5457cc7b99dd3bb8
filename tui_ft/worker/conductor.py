"""Decides, between two steps, what comes next: evaluate, save, pause, stop, change; and tells it."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tui_ft import hardware
from tui_ft.errors import TuiFtError
from tui_ft.recipe import Recipe
from tui_ft.runs import checkpoints
from tui_ft.runs.archive import zip_folder
from tui_ft.runs.commands import Command
from tui_ft.runs.store import Run
from tui_ft.text import one_line
from tui_ft.worker.health import Health, Measured, Warning
from tui_ft.worker.inbox import Inbox, StopNow
from tui_ft.worker.journal import Journal
from tui_ft.worker.saving import Saving
from tui_ft.worker.steering import Steering

if TYPE_CHECKING:  # no torch in here: the rules of a run can be driven, and tried, by a process that starts at once
    from transformers import TrainerControl, TrainerState

    from tui_ft.worker.trainer import Trainer

PAUSE_POLL_SECONDS = 0.2
GPU_SECONDS = 30.0
"""Between two looks at whether the GPU slows itself down."""


class NotFinite(StopNow):
    """The loss or the gradient is not a number any more: going on can only destroy weights, and saving would keep them so."""

    outcome = "paused"

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "not-finite")


class Conductor:
    """The rules of one attempt. `outcome` is what the attempt ends with when the trainer returns."""

    trainer: Trainer

    def __init__(
        self, run: Run, recipe: Recipe, journal: Journal, inbox: Inbox, steps_per_epoch: int, has_validation: bool, steering: Steering
    ) -> None:
        self.run = run
        self.recipe = recipe
        self.journal = journal
        self.inbox = inbox
        self.steps_per_epoch = steps_per_epoch
        self.has_validation = has_validation
        self.outcome = "finished"
        self.reason = ""
        self.steering = steering
        self.evaluations = journal.past.evaluations
        for checkpoint in checkpoints.listing(run):
            self.evaluations.know(checkpoint.step, checkpoint.eval_loss)  # their events may be lost
        self.health = Health(journal.progress.step)
        self.saving = Saving(self)
        self._has_gpu = run.plan(journal.attempt).gpu is not None
        self._gpu_read = time.monotonic()
        self._ending: list[Command] = []
        """Commands that end this attempt once the checkpoint is written."""
        self._asked_checkpoints: list[Command] = []
        self._pausing: list[Command] = []

    # --- the trainer's moments ---------------------------------------------------------------------------------

    def begin(self, state: TrainerState, control: TrainerControl) -> None:
        self.inbox.step = state.global_step
        self.steering.begin(self.trainer, state)
        self.journal.state("running")
        self.inbox.poll()
        if self.inbox.stand_still:
            self._wait_paused()  # as before its worker was killed
        if state.global_step and self._eval_due(state) and state.global_step != self.evaluations.step:
            self.trainer.evaluate()  # a stop at this step left it out

    def step_end(self, state: TrainerState, control: TrainerControl) -> None:
        """After the optimizer step, before its logging, evaluation and saving."""
        self.inbox.step = state.global_step
        if self.steering.make_again(state):
            control.should_training_stop = False  # the library thought that this was the last step
        self.inbox.poll()
        self.obey_settings(state)
        if state.global_step >= state.max_steps:
            control.should_training_stop = True
        control.should_evaluate = self._eval_due(state)
        control.should_save = self._save_due(state)
        self._asked_checkpoints += self.inbox.take("checkpoint")
        self._pausing += [command for command in self.inbox.take("pause") if not self._free(command)]
        if self._asked_checkpoints:
            control.should_save = True
        if self._is_asked_to_end(state):
            control.should_save, control.should_evaluate = True, False
            control.should_training_stop = True
        self.between_batches()

    def between_batches(self) -> None:
        """Also between micro-batches and in evaluations: the moments at which training can end at once."""
        self.inbox.poll()
        for command in [c for c in self.inbox.waiting if c.name == "stop" and c.args.get("now")]:
            newest = max(checkpoints.steps(self.run), default=None)
            kept = f"the newest checkpoint is step {newest}" if newest is not None else "no checkpoint was written yet"
            self.inbox.tell(command, "effected", f"stopped at once; {kept}")
            self.inbox.waiting.remove(command)
            raise StopNow(f"stopped at once, without saving; {kept}")

    def after_step(self) -> None:
        """After logging, evaluation and saving of a step: pauses happen here, with everything told."""
        pausing, self._pausing = self._pausing, []
        ending = self.trainer.control.should_training_stop
        for command in pausing:
            self.inbox.tell(command, "rejected" if ending else "effected", "this was the last step" if ending else "paused; the memory is kept")
        if (pausing or self.inbox.stand_still) and not ending:
            self._wait_paused()

    def evaluated(self, state: TrainerState, control: TrainerControl, metrics: dict[str, float]) -> None:
        loss, accuracy, step = metrics.get("eval_loss", math.nan), metrics.get("eval_mean_token_accuracy"), state.global_step
        is_best = self.evaluations.add(step, loss)
        self.journal.tell("eval", step=step, loss=loss, accuracy=accuracy)
        if not math.isfinite(loss):
            remedy = "See that each validation row has something to learn (`tui-ft preview`), or lower train.learning_rate."
            self.journal.alert("eval", "warning", f"the validation loss is not finite at step {step}", remedy, "data.validation")
        self._tell_samples(step)
        if is_best:
            control.should_save = True  # the best weights must be there to go back to
        self._stop_early(control)

    def _tell_samples(self, step: int) -> None:
        if not self.recipe.evaluate.samples:
            return
        from tui_ft.worker.samples import generate_samples  # loads torch

        for prompt, text in generate_samples(self.trainer, self.recipe.evaluate.samples):
            self.journal.tell("sample", step=step, prompt=prompt, text=text)

    def saved(self, step: int, path: Path, seconds: float) -> None:
        checkpoints.rotate(self.run, self.recipe.checkpoints.keep, self.best_step())
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        self.journal.tell("checkpoint", step=step, path=str(path), bytes=size, outcome="published", seconds=round(seconds, 3))
        if self.recipe.checkpoints.zip:
            self._zip(path)
        for command in self._asked_checkpoints:
            self.inbox.tell(command, "effected", f"checkpoint {step}")
        self._asked_checkpoints = []
        if self._is_asked_to_end(self.trainer.state):
            self._end_saved(step)
        for command in self._ending:
            self.inbox.tell(command, "effected", "that was the last step anyway: the run is finished")
        self._ending = []

    def require_room(self) -> None:
        """Before a save.

        Raises:
            OSError: there is too little room for it.
        """
        self.saving.require_room()

    def save_failed(self, error: BaseException | str) -> None:
        """A save failed, its leftovers removed: wait for room where there is none, else go on without it."""
        self.saving.failed(error)

    def refuse_endings(self, reason: str) -> None:
        """Tell all who want the attempt to end that no checkpoint can be written for it."""
        for command in self._ending:
            self.inbox.tell(command, "rejected", reason)
        state = self.trainer.state
        if self._ending and state.global_step < state.max_steps and not self.inbox.terminated and self.journal.cause != "early-stopping":
            self.trainer.control.should_training_stop = False
        self._ending = []

    def refuse_checkpoints(self, reason: str) -> None:
        for command in self._asked_checkpoints:
            self.inbox.tell(command, "rejected", reason)
        self._asked_checkpoints = []

    def check_health(
        self,
        loss: float,
        grad_norm: float | None,
        learning_rate: float | None = None,
        tokens: int = 0,
        tokens_per_second: float | None = None,
    ) -> None:
        """Look after a step that was told: what is wrong is told once. Before its evaluation and its checkpoint.

        Raises:
            NotFinite: the loss or the gradient is no number any more.
        """
        state, scaled = self.trainer.state, self.trainer.accelerator.scaler is not None
        now = Measured(state.global_step, state.max_steps, loss, learning_rate, grad_norm, tokens, tokens_per_second, scaled)
        broken = self.health.broken(now)
        if broken:
            self.end_not_finite(broken)
        for warning in [*self.health.step(now), *self._gpu_warnings()]:
            self.journal.alert(**asdict(warning))

    def end_not_finite(self, what: str) -> NoReturn:
        """End the attempt before anything is published.

        Args:
            what: is no number any more: `loss`, `gradient`, `weight`.

        Raises:
            NotFinite: always.
        """
        peak = float(self.trainer.optimizer.param_groups[0].get("initial_lr") or self.recipe.train.learning_rate)
        newest = max(checkpoints.steps(self.run), default=None)
        start = f"checkpoint {newest}" if newest is not None else "the beginning"
        remedy = f"`tui-ft resume {self.run.id} --set learning_rate={peak / 10:g}` goes on from {start} with a tenth of the learning rate."
        cause = f"the {what} became infinite or no number at step {self.trainer.state.global_step}: probably the learning rate is too high"
        self.journal.alert("diverged", "error", cause, remedy, "train.learning_rate")
        raise NotFinite(f"{cause}. {remedy}")

    def best_step(self) -> int | None:
        return self.evaluations.best_step

    def eval_loss_at(self, step: int) -> float | None:
        return self.evaluations.loss if step == self.evaluations.step else None

    # --- rules -------------------------------------------------------------------------------------------------

    def _is_asked_to_end(self, state: TrainerState) -> bool:
        """Whether somebody wants the attempt to end before its time; after the last step it is over anyway."""
        return bool(self._ending or self.inbox.terminated) and state.global_step < state.max_steps

    def _eval_due(self, state: TrainerState) -> bool:
        every = self.recipe.evaluate.every
        if not self.has_validation or every == "never":
            return False
        return self._due(every, state)

    def _save_due(self, state: TrainerState) -> bool:
        return self._due(self.recipe.checkpoints.every, state)

    def _due(self, every: int | str, state: TrainerState) -> bool:
        period = self.steps_per_epoch if every == "epoch" else int(every)
        return state.global_step % period == 0 or state.global_step >= state.max_steps

    def _stop_early(self, control: TrainerControl) -> None:
        patience, best = self.recipe.evaluate.early_stopping, self.evaluations.best_step
        if patience and best is not None and self.evaluations.since_best >= patience:
            control.should_training_stop = True
            self.reason = f"early stopping: no better validation loss in {self.evaluations.since_best} evaluations since step {best}"
            self.journal.cause = "early-stopping"

    def _gpu_warnings(self) -> list[Warning]:
        if not self._has_gpu or time.monotonic() - self._gpu_read < GPU_SECONDS:
            return []
        self._gpu_read = time.monotonic()
        return self.health.throttled(*hardware.throttling())

    # --- commands ----------------------------------------------------------------------------------------------

    def _free(self, command: Command) -> bool:
        """A pause that frees the memory ends the attempt after saving."""
        if command.args.get("free_gpu"):
            self._ending.append(command)
            return True
        return False

    def obey_settings(self, state: TrainerState) -> None:
        """Change what is asked to be changed, and note who wants the training to end."""
        self._ending += self.inbox.take("stop") if not self.inbox.wants("stop", now=True) else []
        for command in self.inbox.take("set"):
            refusal = self.steering.change(command.args, state)
            self.inbox.tell(command, "rejected" if refusal else "effected", refusal or self._new_value(command))

    def _new_value(self, command: Command) -> str:
        return ", ".join(f"{key} = {value:g}" for key, value in command.args.items())

    def _wait_paused(self) -> None:
        """Stand still with everything in memory until told otherwise; weights and random numbers are untouched."""
        state, control = self.trainer.state, self.trainer.control
        self.inbox.stand_still = False
        self.journal.state("paused", "by request; the memory is kept")
        while True:
            self.journal.flush()
            self.between_batches()
            self.obey_settings(state)
            for command in self.inbox.take("pause"):
                if not self._free(command):
                    self.inbox.tell(command, "effected", "it is paused already")
            self._asked_checkpoints += self.inbox.take("checkpoint")
            if self._asked_checkpoints or self._ending or self.inbox.terminated:
                control.should_training_stop = bool(self._ending or self.inbox.terminated)
                self.trainer._save_checkpoint(self.trainer.model)
                if control.should_training_stop:
                    return
            resumed = self.inbox.take("resume")
            if resumed:
                self.journal.state("running")
                for command in resumed:
                    self.inbox.tell(command, "effected", "goes on")
                return
            time.sleep(PAUSE_POLL_SECONDS)

    def _end_saved(self, step: int) -> None:
        """The checkpoint that somebody waited for is there: the attempt may end."""
        self.journal.cause = "user"
        freed = [command for command in self._ending if command.name == "pause"]
        self.outcome = "paused" if freed and len(freed) == len(self._ending) else "stopped"
        self.reason = f"by request, at step {step}; the memory is free" if freed else f"by request, at step {step}"
        if self.inbox.terminated and not self._ending:
            self.reason, self.journal.cause = f"asked to end by the system, at step {step}", "system"
        for command in self._ending:
            self.inbox.tell(command, "effected", f"saved at step {step}")
        self._ending = []

    def _zip(self, path: Path) -> None:
        try:
            zip_folder(path, path.with_suffix(".zip"))
        except (OSError, TuiFtError) as error:
            self.journal.alert("zip", "warning", f"{path.name}.zip could not be written: {one_line(error, 200)}", "Free some disk space.")
