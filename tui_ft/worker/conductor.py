"""Decides, between two steps, what comes next: evaluate, save, pause, stop, change; and tells it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_ft.errors import TuiFtError
from tui_ft.recipe import Recipe
from tui_ft.runs import checkpoints
from tui_ft.runs.archive import zip_folder
from tui_ft.runs.commands import Command
from tui_ft.runs.store import Run
from tui_ft.text import one_line
from tui_ft.worker.inbox import Inbox, StopNow, effected_settings
from tui_ft.worker.journal import Journal

if TYPE_CHECKING:  # no torch in here: the rules of a run can be driven, and tried, by a process that starts at once
    from transformers import TrainerControl, TrainerState

    from tui_ft.worker.trainer import Trainer

PAUSE_POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 5.0


class Diverged(TuiFtError):
    """The loss or the gradient is not a number any more: going on can only destroy weights."""


class Conductor:
    """The rules of one attempt. `outcome` is what the attempt ends with when the trainer returns."""

    trainer: Trainer

    def __init__(self, run: Run, recipe: Recipe, journal: Journal, inbox: Inbox, steps_per_epoch: int, has_validation: bool) -> None:
        self.run = run
        self.recipe = recipe
        self.journal = journal
        self.inbox = inbox
        self.steps_per_epoch = steps_per_epoch
        self.has_validation = has_validation
        self.outcome = "finished"
        self.reason = ""
        self._replayed = effected_settings(journal.history)
        self._evals: dict[int, float] = {e["step"]: e["loss"] for e in journal.history if e["type"] == "eval" and e.get("loss") is not None}
        self._ending: list[Command] = []
        """Commands that end this attempt once the checkpoint is written."""
        self._asked_checkpoints: list[Command] = []
        self._pausing: list[Command] = []

    # --- the trainer's moments ---------------------------------------------------------------------------------

    def begin(self, state: TrainerState, control: TrainerControl) -> None:
        self.inbox.step = state.global_step
        for step, settings in self._replayed:
            if step == state.global_step or (step < state.global_step and "max_steps" in settings):
                self._apply(settings, state)
        self.journal.state("running")
        self.inbox.poll()
        if state.global_step and self._eval_due(state) and state.global_step not in self._evals:
            self.trainer.evaluate()  # a stop at this step left it out

    def step_end(self, state: TrainerState, control: TrainerControl) -> None:
        """After the optimizer step, before its logging, evaluation and saving."""
        self.inbox.step = state.global_step
        for step, settings in self._replayed:
            if step == state.global_step:
                self._apply(settings, state)
        self.inbox.poll()
        self._obey_settings(state)
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
        if pausing and not ending:
            self._wait_paused()

    def evaluated(self, state: TrainerState, control: TrainerControl, metrics: dict[str, float]) -> None:
        loss, accuracy, step = metrics.get("eval_loss", math.nan), metrics.get("eval_mean_token_accuracy"), state.global_step
        best_before = min(self._evals.values(), default=math.inf)
        self._evals[step] = loss
        self.journal.tell("eval", step=step, loss=loss, accuracy=accuracy)
        self._tell_samples(step)
        if loss < best_before:
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

    def save_failed(self, error: str) -> None:
        """Training goes on: the last whole checkpoint is still there, and room may be made."""
        cause = f"the checkpoint could not be written: {one_line(error, 300)}"
        self.journal.tell("checkpoint", step=self.trainer.state.global_step, path=None, bytes=0, outcome=f"failed: {one_line(error, 300)}")
        self.journal.alert("checkpoint", "error", cause, "Free some disk space; the next checkpoint is tried again.")
        for command in [*self._asked_checkpoints, *self._ending]:
            self.inbox.tell(command, "rejected", f"{cause}; training goes on. Free some space, or `stop --now`.")
        self._asked_checkpoints, self._ending = [], []
        if not self.inbox.terminated and self.trainer.state.global_step < self.trainer.state.max_steps:
            self.trainer.control.should_training_stop = False
        elif self.inbox.terminated:
            self.outcome, self.reason = "stopped", f"asked to end by the system; {cause}"

    def check_health(self, loss: float, grad_norm: float | None) -> None:
        """A loss that is no number ends the attempt before its weights can be published.

        Raises:
            Diverged: with what to do.
        """
        if math.isfinite(loss) and (grad_norm is None or math.isfinite(grad_norm) or self.trainer.accelerator.scaler is not None):
            return
        what = "loss" if not math.isfinite(loss) else "gradient"
        newest = max(checkpoints.steps(self.run), default=0)
        remedy = f"Lower train.learning_rate, or raise train.warmup; checkpoint {newest} is from before." if newest else "Lower train.learning_rate."
        self.journal.alert("diverged", "error", f"the {what} is not finite at step {self.trainer.state.global_step}", remedy)
        raise Diverged(f"the {what} became infinite or no number at step {self.trainer.state.global_step}", remedy)

    def best_step(self) -> int | None:
        return min(self._evals, key=lambda step: self._evals[step]) if self._evals else None

    def eval_loss_at(self, step: int) -> float | None:
        return self._evals.get(step)

    def last_step(self, planned: int) -> int:
        """The step after which all is done: as planned, or as a person has shortened it since."""
        return min([planned, *(int(settings["max_steps"]) for _, settings in self._replayed if "max_steps" in settings)])

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
        patience, best = self.recipe.evaluate.early_stopping, self.best_step()
        if not patience or best is None:
            return
        since = len([step for step in self._evals if step > best])
        if since >= patience:
            control.should_training_stop = True
            self.reason = f"early stopping: no better validation loss in {since} evaluations since step {best}"

    # --- commands ----------------------------------------------------------------------------------------------

    def _free(self, command: Command) -> bool:
        """A pause that frees the memory ends the attempt after saving."""
        if command.args.get("free_gpu"):
            self._ending.append(command)
            return True
        return False

    def _obey_settings(self, state: TrainerState) -> None:
        self._ending += self.inbox.take("stop") if not self.inbox.wants("stop", now=True) else []
        for command in self.inbox.take("set"):
            refusal = self._apply(command.args, state)
            self.inbox.tell(command, "rejected" if refusal else "effected", refusal or self._new_value(command))

    def _new_value(self, command: Command) -> str:
        return ", ".join(f"{key} = {value:g}" for key, value in command.args.items())

    def _apply(self, settings: dict[str, Any], state: TrainerState) -> str:
        """Change the training; why not, where it cannot."""
        if "max_steps" in settings:
            if settings["max_steps"] < state.global_step or settings["max_steps"] > self.trainer.state.max_steps:
                return f"max_steps can go down to the current step {state.global_step}, not above {state.max_steps}: the schedule is laid out for it"
            state.max_steps = self.trainer.state.max_steps = int(settings["max_steps"])
        if "learning_rate" in settings:
            self._set_peak_learning_rate(float(settings["learning_rate"]))
        return ""

    def _set_peak_learning_rate(self, peak: float) -> None:
        """The schedule goes on with another peak. All three places, else the next step takes it back."""
        scheduler, optimizer = self.trainer.lr_scheduler, self.trainer.optimizer
        inner: Any = getattr(scheduler, "scheduler", scheduler)
        for group, base in zip(optimizer.param_groups, inner.base_lrs, strict=True):
            group["lr"] = group["lr"] * peak / base if base else peak
            group["initial_lr"] = peak
        inner.base_lrs = [peak for _ in inner.base_lrs]
        inner._last_lr = [group["lr"] for group in optimizer.param_groups]

    def _wait_paused(self) -> None:
        """Stand still with everything in memory until told otherwise; weights and random numbers are untouched."""
        state, control = self.trainer.state, self.trainer.control
        self.journal.state("paused", "by request; the memory is kept")
        heartbeat = time.monotonic()
        while True:
            self.inbox.poll()
            self.between_batches()
            self._obey_settings(state)
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
            if time.monotonic() - heartbeat > HEARTBEAT_SECONDS:
                self.journal.write_status()
                heartbeat = time.monotonic()
            time.sleep(PAUSE_POLL_SECONDS)

    def _end_saved(self, step: int) -> None:
        """The checkpoint that somebody waited for is there: the attempt may end."""
        freed = [command for command in self._ending if command.name == "pause"]
        self.outcome = "paused" if freed and len(freed) == len(self._ending) else "stopped"
        self.reason = f"by request, at step {step}; the memory is free" if freed else f"by request, at step {step}"
        if self.inbox.terminated and not self._ending:
            self.reason = f"asked to end by the system, at step {step}"
        for command in self._ending:
            self.inbox.tell(command, "effected", f"saved at step {step}")
        self._ending = []

    def _zip(self, path: Path) -> None:
        try:
            zip_folder(path, path.with_suffix(".zip"))
        except (OSError, TuiFtError) as error:
            self.journal.alert("zip", "warning", f"{path.name}.zip could not be written: {one_line(error, 200)}", "Free some disk space.")
