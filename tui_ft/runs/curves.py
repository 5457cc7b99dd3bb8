"""What a run measured, as arrays for charts: filled from its events, superseded steps taken out again."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from tui_ft.runs.events import Event
from tui_ft.runs.progress import Progress

SERIES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes")


def _doubles() -> array[float]:
    return array("d")


@dataclass
class Curves:
    """Series over optimizer steps; a value that was not finite is NaN, so that a chart can show the gap."""

    steps: array[float] = field(default_factory=_doubles)
    loss: array[float] = field(default_factory=_doubles)
    learning_rate: array[float] = field(default_factory=_doubles)
    grad_norm: array[float] = field(default_factory=_doubles)
    tokens_per_second: array[float] = field(default_factory=_doubles)
    memory_bytes: array[float] = field(default_factory=_doubles)
    evals: list[tuple[int, float, float | None]] = field(default_factory=list)
    """(step, validation loss, token accuracy 0 to 1 or None)"""
    samples: list[Event] = field(default_factory=list)
    checkpoints: list[Event] = field(default_factory=list)
    alerts: list[Event] = field(default_factory=list)
    messages: list[Event] = field(default_factory=list)
    """Everything but the measurements: states, commands, checkpoints, alerts, attempts."""
    progress: Progress = field(default_factory=Progress)

    def add(self, events: Iterable[Event]) -> bool:
        """Take in new events, in order; whether anything came."""
        came = False
        for event in events:
            came = True
            self._add(event)
            self.progress.apply(event)
        return came

    def _add(self, event: Event) -> None:
        kind = event["type"]
        if kind == "step":
            self.steps.append(event.get("step", 0))
            for name in SERIES:
                value = event.get(name)
                getattr(self, name).append(math.nan if value is None else value)
            return
        if kind == "eval":
            loss = event.get("loss")
            self.evals.append((event.get("step", 0), math.nan if loss is None else loss, event.get("accuracy")))
            return
        if kind == "attempt_started":
            self._drop_after(event.get("from_step", 0))
        if kind in ("sample", "checkpoint", "alert"):
            getattr(self, f"{kind}s").append(event)
        if kind != "progress":
            self.messages.append(event)

    def _drop_after(self, step: int) -> None:
        end = bisect_right(self.steps, step)
        for name in ("steps", *SERIES):
            del getattr(self, name)[end:]
        self.evals = [entry for entry in self.evals if entry[0] <= step]
        self.samples = [sample for sample in self.samples if sample.get("step", 0) <= step]
