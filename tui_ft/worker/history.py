"""What earlier attempts told that still matters to this one, folded line by line: a million steps never lie in memory."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import get_args

from tui_ft.runs.commands import Name
from tui_ft.runs.events import Event, EventReader
from tui_ft.runs.progress import LOSS_WINDOW, Progress, still_holding
from tui_ft.runs.store import Run

WORDS = ("attempt_started", "command", "state")
MEASURED = ("attempt_started", "plan", "step", "eval", "command")


@dataclass
class Evaluations:
    """The best and the newest validation loss; as large after a thousand evaluations as after one."""

    best_step: int | None = None
    best_loss: float = math.inf
    since_best: int = 0
    """Evaluations after the best one."""
    step: int | None = None
    loss: float | None = None

    def add(self, step: int, loss: float | None) -> bool:
        """Take in one; whether it is the best so far. A loss that is no number never is."""
        self.step, self.loss = step, loss
        if loss is None or not math.isfinite(loss) or loss >= self.best_loss:
            self.since_best += 1
            return False
        self.best_step, self.best_loss, self.since_best = step, loss, 0
        return True

    def know(self, step: int, loss: float | None) -> None:
        """Take in a loss that was measured at some time before."""
        if loss is not None and math.isfinite(loss) and loss < self.best_loss:
            self.best_step, self.best_loss, self.since_best = step, loss, 0


@dataclass
class History:
    """The fold. What depends on where this attempt starts is filled by `measure`."""

    changes: list[Event] = field(default_factory=list)
    """Every change of the training that took effect (`set`), in the order in which it did."""
    unanswered: dict[str, Event] = field(default_factory=dict)
    """Commands that were acknowledged and neither effected nor rejected, by id, oldest first."""
    known: set[str] = field(default_factory=set)
    """The id of every command that was ever answered or acknowledged."""
    starts: list[int] = field(default_factory=list)
    """The step from which each attempt went on."""
    willed: int = 0
    """The newest attempt that a person began; those after it are restarts by the supervisor, of one will."""
    was_paused: bool = False
    """The newest word on the run's state is that it stands paused."""
    evaluations: Evaluations = field(default_factory=Evaluations)

    @classmethod
    def read(cls, run: Run) -> History:
        """The words of all attempts, without their measurements."""
        history, restarts = cls(), set()
        attempts: set[int] = set()
        for event in EventReader(run, only=WORDS).stream():
            attempts.add(event["attempt"])
            if event["type"] == "attempt_started":
                history.starts.append(int(event.get("from_step") or 0))
            elif event["type"] == "state":
                history.was_paused = event.get("to") == "paused"
                if event.get("restart"):
                    restarts.add(event["attempt"])
            elif isinstance(event.get("id"), str) and isinstance(event.get("args"), dict) and event.get("name") in get_args(Name):
                history._hear(event)
        history.willed = max(attempts - restarts, default=0)
        return history

    def _hear(self, event: Event) -> None:
        self.known.add(event["id"])
        if event.get("phase") == "applied":
            self.unanswered[event["id"]] = event
            return
        self.unanswered.pop(event["id"], None)
        if event.get("phase") == "effected" and event.get("name") == "set":
            self.changes.append(event)

    def measure(self, run: Run, from_step: int) -> Progress:
        """Where the run stands when an attempt goes on from a step: what earlier ones measured after it does not count."""
        progress, memory = Progress(), 0
        recent: deque[Event] = deque(maxlen=LOSS_WINDOW)  # of most steps nothing stays, and folding each would take half a minute
        stream = EventReader(run, only=MEASURED).stream()
        for event in still_holding(stream, [*self.starts, from_step]):
            if event["type"] == "step" and event.get("step", 0) > LOSS_WINDOW:
                recent.append(event)
                memory = max(memory, event.get("memory_bytes") or 0)
                continue
            progress.apply(event)
            if event["type"] == "eval":
                self.evaluations.add(event.get("step", 0), event.get("loss"))
        for event in recent:
            progress.apply(event)
        progress.peak_memory_bytes = max(memory, progress.peak_memory_bytes or 0) or None
        return progress
