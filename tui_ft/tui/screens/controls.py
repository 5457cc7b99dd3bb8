"""The keys that steer a run: each request goes to the worker as a command and is answered in the dashboard's third line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tui_ft import units
from tui_ft.errors import TuiFtError
from tui_ft.runs import control, queue
from tui_ft.runs.fingerprint import Changed
from tui_ft.runs.store import Run
from tui_ft.runs.summary import CheckpointInfo, Summary
from tui_ft.tui import requests as ask
from tui_ft.tui.screen import TuiScreen
from tui_ft.tui.screens.confirm import Confirm, Prompt
from tui_ft.tui.widgets import checkpoint_list

STOP_NOW = "stop now"


class ControlScreen(TuiScreen):
    """What the dashboard does, without what it shows."""

    run: Run
    summary: Summary | None = None

    def __init__(self) -> None:
        super().__init__()
        self.requests = ask.Requests()
        self._resuming: int | None = None
        """The checkpoint that the last resume was asked to go back to."""

    @property
    def checkpoint(self) -> CheckpointInfo | None:
        """The checkpoint that is meant."""
        raise NotImplementedError

    def look(self) -> None:
        """Take in what is new and show it."""
        raise NotImplementedError

    def show_head(self) -> None:
        """Show state and requests anew."""
        raise NotImplementedError

    def unavailable(self, action: str) -> str:
        return ask.unavailable(action, self.run, self.summary, self.checkpoint is not None)

    def on_asked(self, event: ask.Asked) -> None:
        self.requests.take(event)
        if isinstance(event.error, Changed):
            self._ask_to_accept(event.words, event.error)
        elif event.error:
            self.tui.report(event.error)
        self.look()

    def _request(self, words: str, act: Callable[[], str | None]) -> None:
        self.requests.line = f"{words}: asking …"
        self.show_head()
        self.run_worker(partial(ask.carry_out, words, act, self.post_message), thread=True, group="control", exit_on_error=False)

    def _request_if_sure(self, question: Confirm, words: str, act: Callable[[], str | None]) -> None:
        self.app.push_screen(question, lambda sure: self._request(words, act) if sure else None)

    def action_pause(self) -> None:
        if self.summary and self.summary.state == "paused":
            self.action_resume()
        else:
            self._request("pause", lambda: control.pause(self.run))

    def action_free(self) -> None:
        self._request("pause and free the memory", lambda: control.pause(self.run, free_gpu=True))

    def action_resume(self) -> None:
        self._resume("resume")

    def _resume(self, words: str, step: int | None = None, accept: Sequence[str] = ()) -> None:
        self._resuming = step
        self._request(words, lambda: control.resume(self.run, step, accept=accept))

    def _ask_to_accept(self, words: str, changed: Changed) -> None:
        listed = "\n".join(f"· {difference}" for difference in changed.differences)
        question = Confirm("Go on although this has changed?", f"{listed}\nThe result is then another one than without a stop.", yes="Go on")
        keys = [difference.key for difference in changed.differences]
        self.app.push_screen(question, lambda sure: self._resume(words, self._resuming, keys) if sure else None)

    def action_resume_from(self) -> None:
        checkpoint = self.checkpoint
        if checkpoint:
            step = checkpoint.step
            question = Confirm(f"Go on from the checkpoint at step {step}?", "What was measured after it is measured again.", yes="Go on")
            self.app.push_screen(question, lambda sure: self._resume(f"resume from {step}", step) if sure else None)

    def action_checkpoint(self) -> None:
        self._request("checkpoint", lambda: control.checkpoint(self.run))

    def action_stop(self) -> None:
        if self.summary and self.summary.queue_position is not None:
            question = Confirm("Take this run out of the queue?", "It will not begin by itself; it can be resumed.", yes="Take out", no="Let it wait")
            self._request_if_sure(question, "take out of the queue", lambda: queue.cancel(self.run))
            return
        question = Confirm("Stop this run after the current step?", "A checkpoint is saved first; the run can be resumed.", yes="Stop")
        self._request_if_sure(question, "stop and save", lambda: control.stop(self.run))

    def action_stop_now(self) -> None:
        if STOP_NOW in self.requests.pending.values():
            question = Confirm("It has not answered yet. End it by force?", "Its supervisor gives it half a minute, then kills it.", yes="End it")
            self._request_if_sure(question, "end by force", lambda: control.end_by_force(self.run))
            return
        question = Confirm("Stop this run at once?", "Nothing is saved: the work since the last checkpoint is lost.", yes=STOP_NOW.capitalize())
        self._request_if_sure(question, STOP_NOW, lambda: control.stop(self.run, now=True))

    def action_learning_rate(self) -> None:
        detail = "The peak of the schedule, from the next step on; where the schedule stands in it does not change."
        try:
            value = f"{self.run.recipe().train.learning_rate:g}"
        except TuiFtError:
            value = ""
        self.app.push_screen(Prompt("New learning rate", value, detail, learning_rate_problem), self._set_learning_rate)

    def _set_learning_rate(self, value: str | None) -> None:
        if value is not None:
            rate = float(value)
            self._request(f"learning rate {rate:g}", lambda: control.change(self.run, learning_rate=rate))

    def action_zip(self) -> None:
        checkpoint = self.checkpoint
        if checkpoint:
            self._request(f"zip of step {checkpoint.step}", partial(checkpoint_list.pack, checkpoint))

    def action_verify(self) -> None:
        checkpoint = self.checkpoint
        if checkpoint:
            self._request(f"verify checkpoint {checkpoint.step}", partial(checkpoint_list.verify, self.run, checkpoint.step))

    def action_delete_checkpoint(self) -> None:
        checkpoint = self.checkpoint
        if checkpoint:
            step, size = checkpoint.step, units.size(checkpoint.bytes + (checkpoint.zip or 0))
            detail = f"{'It is the best by validation loss. ' if checkpoint.best else ''}{size} are free again; nothing brings it back."
            question = Confirm(f"Delete the checkpoint at step {step}?", detail, yes="Delete", no="Keep")
            self._request_if_sure(question, f"delete checkpoint {step}", partial(checkpoint_list.delete, self.run, step))

    def action_chat(self) -> None:
        self.tui.open_chat(self.run)


def learning_rate_problem(value: str) -> str:
    """What is wrong with a learning rate as it was typed."""
    try:
        rate = float(value)
    except ValueError:
        return "This is not a number; write it as 1e-5 or 0.0002."
    return "" if 0 < rate < 10 else "A learning rate is above 0 and below 10."
