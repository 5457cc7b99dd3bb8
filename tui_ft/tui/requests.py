"""What was asked of a run's worker from this terminal, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from textual.message import Message

from tui_ft.errors import TuiFtError
from tui_ft.runs import control
from tui_ft.runs.events import Event
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary


@dataclass
class Asked(Message):
    """A request was carried out, or could not even be made."""

    words: str
    command_id: str | None = None
    """The command whose answer is to be waited for; None where it is done already."""
    error: TuiFtError | None = None


def carry_out(words: str, act: Callable[[], str | None], post: Callable[[Message], object]) -> None:
    """For a thread: do it, and say how it went. Starting a supervisor takes up to seconds, a command one fsync."""
    try:
        post(Asked(words, act()))
    except TuiFtError as error:
        post(Asked(words, error=error))


@dataclass
class Requests:
    """The newest request in words, as one line of the dashboard."""

    line: str = ""
    pending: dict[str, str] = field(default_factory=dict)
    """Command id → what it asks for."""
    since: dict[str, float] = field(default_factory=dict)
    """Command id → when it was asked for, on the monotonic clock."""

    def take(self, asked: Asked) -> None:
        if asked.error:
            self.line = f"{asked.words}: {asked.error.message}"
        elif asked.command_id:
            self.pending[asked.command_id] = asked.words
            self.since[asked.command_id] = time.monotonic()
            self.line = f"{asked.words}: asked, done after the current step …"
        else:
            self.line = f"{asked.words}: done"

    def settle(self, answers: dict[str, Event], state: str) -> None:
        """Hold the pending requests against what the worker told; a worker that ended without a word answers none."""
        for command_id, words in list(self.pending.items()):
            answer = answers.get(command_id)
            phase = answer.get("phase") if answer else None
            seconds = time.monotonic() - self.since[command_id]
            if answer and phase == "effected":
                self.line = f"{words}: done at step {answer.get('step')} after {seconds:.1f} s"
            elif answer and phase not in (None, "applied"):
                self.line = f"{words}: {phase}, {answer.get('reason') or 'no reason given'}"
            elif state not in control.ALIVE:
                self.line = f"{words}: the worker ended before it came to this"
            else:
                has_it = "acknowledged, waiting for the end of the step" if phase else "asked, not acknowledged yet"
                self.line = f"{words}: {has_it} · {seconds:.0f} s"
                continue
            del self.pending[command_id], self.since[command_id]


def unavailable(action: str, run: Run, summary: Summary | None, has_checkpoint: bool) -> str:
    """Why a control of the dashboard cannot be used now; empty when it can."""
    if summary is None:
        return ""
    state = summary.state
    here = state in control.ALIVE
    if summary.queue_position is not None and action in ("stop", "resume"):
        return "it waits in the queue and begins by itself" if action == "resume" else ""
    if action in ("pause", "free", "checkpoint", "learning_rate", "stop", "stop_now"):
        if state == "paused" and not _has_worker(run):
            return "it is paused with its memory freed: resume it first" if action != "pause" else "it is paused; resume goes on"
        return "" if here else f"the run is {state}"
    if action == "resume":
        return "" if state in control.RESUMABLE else f"the run is {state}"
    if action == "resume_from":
        return "no checkpoint is selected" if not has_checkpoint else ("stop the run first" if here else "")
    if action in ("zip", "verify", "delete_checkpoint"):
        return "" if has_checkpoint else "there is no checkpoint yet"
    if action == "chat":
        return "" if summary.model else "there is no model yet: it is written when the run ends"
    return ""


def _has_worker(run: Run) -> bool:
    owner = run.owner()
    return owner is not None and (owner[0].is_alive() or not owner[0].is_here())
