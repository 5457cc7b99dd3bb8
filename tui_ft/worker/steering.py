"""What a person changes of a training that runs: the learning rate's peak and the number of steps. No torch.

Every change holds from a step on. A resume from an earlier checkpoint makes it again at that step, so that a crash changes nothing; what
is asked for after going back, with a resume (`tui-ft resume RUN --set …`) or while it runs, takes the place of what was to come again later.
"""

from __future__ import annotations

from typing import Any

from tui_ft.recipe import Plan
from tui_ft.runs.events import Event
from tui_ft.worker.journal import Journal

Settings = dict[str, Any]


class Steering:
    """The changes of one run, as one attempt makes them."""

    trainer: Any

    def __init__(self, journal: Journal, plan: Plan) -> None:
        self.journal = journal
        self.planned: int | None = None
        """Steps as the recipe has them; None until the rows are counted."""
        self.changes = _still_wanted(journal.past.changes)
        known = {event["id"] for event in journal.past.changes}
        self.given: Settings = {} if plan.settings_id in known else _whole(plan.settings)  # a restart does not make them a second time
        self.given_id = plan.settings_id
        if self.given:
            self.changes = _superseded(self.changes, journal.progress.step, self.given)

    def steps_at(self, step: int, planned: int) -> int:
        """The last step, as it was meant when `step` was done."""
        for at, settings in self.changes:
            if at <= step and "max_steps" in settings:
                planned = int(settings["max_steps"])
        return int(self.given.get("max_steps", planned))

    def horizon_at(self, step: int, planned: int) -> int:
        """The steps that the schedule is laid out for: fewer steps end it early, more steps lay it out anew."""
        for at, settings in self.changes:
            if at <= step:
                planned = max(planned, int(settings.get("max_steps", 0)))
        return planned

    def furthest(self, planned: int) -> int:
        """The highest number of steps that this attempt may come to."""
        return max([planned, *(int(settings.get("max_steps", 0)) for settings in [*(made for _, made in self.changes), self.given])])

    def begin(self, trainer: Any, state: Any) -> None:
        """Before the first step: bring the training to where it stood at its checkpoint, then make what the resume brought."""
        self.trainer = trainer
        planned = self.planned or state.max_steps
        given, self.given = self.given, {}
        self._set_steps(state, self.steps_at(state.global_step, planned))
        horizon = self.horizon_at(state.global_step, planned)
        if horizon != self.horizon_at(state.global_step - 1, planned):
            trainer.lay_out_schedule(horizon)  # the checkpoint was written before the end was moved away
        now = {key: value for at, settings in self.changes if at == state.global_step for key, value in settings.items() if key != "max_steps"}
        if now:
            self._set_peak(float(now["learning_rate"]))
        if given:
            self._make(given, state)
            self.changes.append((state.global_step, given))
            told = {"id": self.given_id, "name": "set", "args": given, "phase": "effected", "step": state.global_step}
            self.journal.tell("command", **told, by="resume", reason="given with the resume")

    def make_again(self, state: Any) -> bool:
        """At the end of a step: the changes that took effect there before; whether that moved the end further away."""
        before = state.max_steps
        for at, settings in self.changes:
            if at == state.global_step:
                self._make(settings, state)
        return bool(state.max_steps > before)

    def change(self, settings: Settings, state: Any) -> str:
        """Make a change that is asked for now; why not, where it cannot be made."""
        steps = settings.get("max_steps")
        if steps is not None and steps < state.global_step:
            return f"step {state.global_step} is done already: max_steps cannot be less"
        if steps is not None and steps > state.max_steps:
            resume = f"`tui-ft resume {self.journal.run.id} --set max_steps={int(steps)}`"
            return f"max_steps cannot go above {state.max_steps} while it runs, since the schedule is laid out for it: stop it, then {resume}"
        self._make(settings, state)
        self.changes = _superseded(self.changes, state.global_step, settings)  # what comes again later was the older wish
        return ""

    def _make(self, settings: Settings, state: Any) -> None:
        if "max_steps" in settings:
            self._set_steps(state, int(settings["max_steps"]))
            if int(settings["max_steps"]) > self.horizon_at(state.global_step - 1, self.planned or state.max_steps):
                self.trainer.lay_out_schedule(int(settings["max_steps"]))
        if "learning_rate" in settings:
            self._set_peak(float(settings["learning_rate"]))

    def _set_steps(self, state: Any, steps: int) -> None:
        state.max_steps = self.trainer.state.max_steps = steps

    def _set_peak(self, peak: float) -> None:
        """The schedule goes on with another peak. All three places, else the next step takes it back."""
        scheduler, groups = self.trainer.lr_scheduler, self.trainer.optimizer.param_groups
        inner: Any = getattr(scheduler, "scheduler", scheduler)
        bases = getattr(inner, "base_lrs", [0.0] * len(groups))  # a schedule that follows the loss has no peak: the rate itself is set
        for number, (group, base) in enumerate(zip(groups, bases, strict=True)):
            group["initial_lr"] = peak
            if hasattr(inner, "lr_lambdas"):
                group["lr"] = peak * inner.lr_lambdas[number](inner.last_epoch)  # as the schedule itself rounds it, whatever it was before
            elif base != peak:
                group["lr"] = group["lr"] * peak / base if base else peak
        if hasattr(inner, "base_lrs"):
            inner.base_lrs = [peak for _ in inner.base_lrs]
        inner._last_lr = [group["lr"] for group in groups]


def _whole(settings: dict[str, float]) -> Settings:
    return {key: int(value) if key == "max_steps" else value for key, value in settings.items()}


def _still_wanted(changes: list[Event]) -> list[tuple[int, Settings]]:
    """(step, settings) of every change that took effect in earlier attempts and still holds, by step."""
    made: list[tuple[int, Settings]] = []
    for event in changes:
        step, settings = int(event.get("step") or 0), event["args"]
        made = [*_superseded(made, step, settings), (step, settings)]
    return sorted(made, key=lambda change: change[0])


def _superseded(made: list[tuple[int, Settings]], step: int, settings: Settings) -> list[tuple[int, Settings]]:
    """Without what later steps changed of the same keys: who goes back and sets a key anew does not want the old change again."""
    kept = [(at, {key: value for key, value in change.items() if at <= step or key not in settings}) for at, change in made]
    return [(at, change) for at, change in kept if change]
