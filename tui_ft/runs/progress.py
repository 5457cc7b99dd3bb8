"""Where a run stands: the fold of its events, kept as `status.json` so that a look costs one small file."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from tui_ft import home
from tui_ft.pace import Pace
from tui_ft.runs.events import Event
from tui_ft.runs.store import Run, read_json

State = Literal["queued", "starting", "running", "paused", "stopped", "finished", "failed", "lost"]
LOSS_WINDOW = 5
"""`first_loss` and `last_loss` are means over so many optimizer steps."""
SPEED_WINDOW = 20
MOST_ALERTS = 8


class Alert(BaseModel):
    """What is wrong, probably why, and what helps."""

    kind: str = ""
    severity: str = "warning"
    cause: str = ""
    remedy: str = ""
    key: str = ""
    """The recipe key that the remedy is about, where it is about one."""


class Progress(BaseModel):
    """The newest known facts of a run; `apply` takes it from one event to the next."""

    attempt: int = 0
    state: State = "starting"
    reason: str = ""
    ended: bool = False
    """The worker said its last words; the supervisor still draws the report and records the end."""
    stage: str = ""
    """What is being done before the first step: download, prepare, load."""
    stage_done: int = 0
    stage_total: int | None = None
    stage_began: tuple[float, int] | None = None
    """When the stage was first told of, on the worker's monotonic clock, and what was done by then."""
    stage_told: float | None = None
    step: int = 0
    total_steps: int | None = None
    epoch: float = 0.0
    learning_rate: float | None = None
    first_losses: list[float] = Field(default_factory=list)
    last_losses: list[float] = Field(default_factory=list)
    last_eval_loss: float | None = None
    best_eval_loss: float | None = None
    best_step: int | None = None
    tokens: int = 0
    tokens_per_second: float | None = None
    step_seconds: list[float] = Field(default_factory=list)
    peak_memory_bytes: int | None = None
    alerts: list[Alert] = Field(default_factory=list)
    """What the present attempt warned of and has not taken back, the newest of each kind."""
    seq: int = -1
    t: str = ""
    mono: float | None = None

    def apply(self, event: Event) -> None:
        """Take in one event; unknown types and fields are skipped."""
        self.seq, self.t = event.get("seq", self.seq), event.get("t", self.t)
        handler = getattr(self, f"_on_{event['type']}", None)
        if handler:
            handler(event)

    def _on_attempt_started(self, event: Event) -> None:
        self.attempt = event.get("attempt", self.attempt)
        self.state, self.reason, self.stage, self.ended = "starting", "", "", False
        self.step = event.get("from_step", 0)
        self.mono, self.step_seconds, self.alerts = None, [], []

    def _on_plan(self, event: Event) -> None:
        self.total_steps = event.get("steps") or self.total_steps

    def _on_progress(self, event: Event) -> None:
        stage, done = event.get("stage", ""), event.get("done", 0)
        if stage != self.stage or self.stage_began is None or done < self.stage_done:
            self.stage_began = event.get("mono", 0.0), done
        self.stage, self.stage_done, self.stage_total, self.stage_told = stage, done, event.get("total"), event.get("mono")

    def _on_step(self, event: Event) -> None:
        step = event.get("step", self.step)
        if self.mono is not None and event.get("mono", 0) > self.mono:
            self.step_seconds = [*self.step_seconds, event["mono"] - self.mono][-SPEED_WINDOW:]
        self.step, self.stage, self.mono = step, "", event.get("mono")
        self.epoch = event.get("epoch", self.epoch)
        self.learning_rate = event.get("learning_rate")
        loss = event.get("loss")
        if loss is not None:
            if step <= LOSS_WINDOW:
                self.first_losses = [*self.first_losses[: step - 1], loss]
            self.last_losses = [*self.last_losses, loss][-LOSS_WINDOW:]
        self.tokens = event.get("tokens", self.tokens)
        self.tokens_per_second = event.get("tokens_per_second")
        memory = event.get("memory_bytes")
        if memory is not None:
            self.peak_memory_bytes = max(memory, self.peak_memory_bytes or 0)

    def _on_eval(self, event: Event) -> None:
        self.mono = None  # the time of an evaluation is not the time of a step
        loss = event.get("loss")
        self.last_eval_loss = loss
        if loss is not None and (self.best_eval_loss is None or loss < self.best_eval_loss):
            self.best_eval_loss, self.best_step = loss, event.get("step")

    def _on_command(self, event: Event) -> None:
        if event.get("phase") == "effected" and event.get("name") == "set" and "max_steps" in event.get("args", {}):
            self.total_steps = event["args"]["max_steps"]

    def _on_state(self, event: Event) -> None:
        self.state, self.reason, self.mono = event.get("to", self.state), event.get("reason", ""), None

    def _on_alert(self, event: Event) -> None:
        told = Alert(**{name: str(event.get(name) or "") for name in Alert.model_fields})
        others = [alert for alert in self.alerts if alert.kind != told.kind]
        self.alerts = others if event.get("cleared") else [*others, told][-MOST_ALERTS:]

    def _on_attempt_ended(self, event: Event) -> None:
        self.ended = True

    def first_loss(self) -> float | None:
        return _mean(self.first_losses)

    def last_loss(self) -> float | None:
        return _mean(self.last_losses)

    def stage_pace(self) -> str:
        """How far the stage is, how fast it goes and how long it takes: `45 % · 8.1k rows/s · 2 min left`; empty where it counts nothing."""
        if not self.stage or not self.stage_done or self.stage_began is None or self.stage_told is None:
            return ""
        (began, before), pace = self.stage_began, Pace()
        pace.update(before, self.stage_total, began)
        pace.update(self.stage_done, self.stage_total, self.stage_told)
        return pace.text({"download": "B", "load": "weights"}.get(self.stage, "rows"))

    def eta_seconds(self) -> float | None:
        """Seconds to the last step at the median pace of the last steps; None before two of them."""
        if not self.step_seconds or not self.total_steps or self.state != "running":
            return None
        pace = sorted(self.step_seconds)[len(self.step_seconds) // 2]
        return pace * max(0, self.total_steps - self.step)

    def eta_error(self) -> float | None:
        """By how many seconds `eta_seconds` may be wrong, if the pace stays what it was: two standard errors of the median pace.

        A median's standard error is 1.253 σ / √n, with σ taken from the quartiles' distance over 1.349, so that a single slow step counts little.
        None before eight steps.
        """
        seconds = sorted(self.step_seconds)
        if len(seconds) < 8 or not self.total_steps or self.state != "running":
            return None
        spread = (seconds[(3 * len(seconds)) // 4] - seconds[len(seconds) // 4]) / 1.349
        return 2 * 1.253 * spread / math.sqrt(len(seconds)) * max(0, self.total_steps - self.step)

    @classmethod
    def read(cls, run: Run) -> Progress:
        """What the worker last wrote; a blank one before it wrote anything."""
        try:
            return cls.model_validate(read_json(run.status_file))
        except ValueError:
            return cls()

    def write(self, run: Run) -> None:
        """Keep it as the run's status.

        Raises:
            OSError: the disk refuses, or the run was deleted, which must not make its folder anew.
        """
        if not run.path.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the run is gone", str(run.path))
        home.write_atomically(run.status_file, self.model_dump_json())


def kept_events(events: Iterable[Event], from_step: int | None = None) -> list[Event]:
    """The events that still hold: an attempt that starts at step n supersedes what earlier ones said of later steps.

    Args:
        events: of all attempts, in order.
        from_step: the step at which the attempt to come starts; None when none comes.
    """
    events = list(events)
    starts = [event.get("from_step", 0) for event in events if event["type"] == "attempt_started"]
    return list(still_holding(events, starts if from_step is None else [*starts, from_step]))


def still_holding(events: Iterable[Event], starts: Sequence[int]) -> Iterator[Event]:
    """The same one by one, where the steps from which all attempts start are known already."""
    following = list(starts)
    for index in range(len(following) - 2, -1, -1):
        following[index] = min(following[index], following[index + 1])
    begun = 0
    for event in events:
        if event["type"] == "attempt_started":
            begun += 1
        elif begun < len(following) and _superseded(event, following[begun]):
            continue
        yield event


def _superseded(event: Event, start: int) -> bool:
    """Measurements of steps after `start` are made again; commands and checkpoints did happen and stay told."""
    return event["type"] in {"step", "eval", "sample"} and event.get("step", 0) > start


def _mean(values: list[Any]) -> float | None:
    return sum(values) / len(values) if values else None
