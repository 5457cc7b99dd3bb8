"""What a run measured, as arrays for charts: filled from its events, superseded steps taken out again."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tui_ft.runs.events import Event
from tui_ft.runs.progress import Progress

SERIES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes")
POINTS = 20_000
"""Kept at most: a chart of 400 dot columns has 50 for each. Beyond, two and two become one, and so on."""
MESSAGES = 1_000
"""Events of other kinds that are kept, the newest of each."""


def _doubles() -> array[float]:
    return array("d")


@dataclass
class Curves:
    """Series over optimizer steps; a value that was not finite is NaN, so that a chart can show the gap."""

    steps: array[float] = field(default_factory=_doubles)
    """Each the last of the steps that its point stands for."""
    loss: array[float] = field(default_factory=_doubles)
    """Means over the steps of a point; so are the other series."""
    lowest: array[float] = field(default_factory=_doubles)
    """The lowest and the highest loss among the steps of a point, so that a spike of one step stays visible."""
    highest: array[float] = field(default_factory=_doubles)
    learning_rate: array[float] = field(default_factory=_doubles)
    grad_norm: array[float] = field(default_factory=_doubles)
    tokens_per_second: array[float] = field(default_factory=_doubles)
    memory_bytes: array[float] = field(default_factory=_doubles)
    stride: int = 1
    """Measured steps that a point stands for; the newest points, fewer than this, are single steps."""
    evals: list[tuple[int, float, float | None]] = field(default_factory=list)
    """(step, validation loss, token accuracy 0 to 1 or None)"""
    samples: list[Event] = field(default_factory=list)
    checkpoints: list[Event] = field(default_factory=list)
    alerts: list[Event] = field(default_factory=list)
    messages: list[Event] = field(default_factory=list)
    """Everything but the measurements: states, commands, checkpoints, alerts, attempts."""
    progress: Progress = field(default_factory=Progress)
    _whole: int = 0
    """Points at the beginning that stand for `stride` steps each."""

    @property
    def settled(self) -> int:
        """How many points at the beginning stay as they are; those behind them, fewer than `stride`, are still to become one."""
        return self._whole

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
            self._add_step(event)
            return
        if kind == "eval":
            loss = event.get("loss")
            self.evals.append((event.get("step", 0), math.nan if loss is None else loss, event.get("accuracy")))
            if len(self.evals) > POINTS:
                best = min(self.evals, key=lambda entry: entry[1] if math.isfinite(entry[1]) else math.inf)
                self.evals = sorted({*self.evals[1::2], best}, key=lambda entry: entry[0])
            return
        if kind == "attempt_started":
            self._drop_after(event.get("from_step", 0))
        if kind in ("sample", "checkpoint", "alert"):
            _keep(getattr(self, f"{kind}s"), event)
        if kind != "progress":
            _keep(self.messages, event)

    def _add_step(self, event: Event) -> None:
        self.steps.append(event.get("step", 0))
        for name in SERIES:
            value = event.get(name)
            getattr(self, name).append(math.nan if value is None else value)
        self.lowest.append(self.loss[-1])
        self.highest.append(self.loss[-1])
        if len(self.steps) - self._whole >= self.stride:
            if self.stride > 1:
                self._merge_newest()
            self._whole += 1
        if len(self.steps) > POINTS:
            self._halve()

    def _halve(self) -> None:
        """Two and two points become one; a last one without partner stays a single step."""
        pairs = len(self.steps) // 2
        self.steps = array("d", [*self.steps[1 : 2 * pairs : 2], *self.steps[2 * pairs :]])
        for name, choose in MERGED:
            values = getattr(self, name)
            merged = (_of_finite(choose, values[index : index + 2]) for index in range(0, 2 * pairs, 2))
            setattr(self, name, array("d", [*merged, *values[2 * pairs :]]))
        self._whole, self.stride = pairs, 2 * self.stride

    def _merge_newest(self) -> None:
        """Make one point of the single steps at the end."""
        start = self._whole
        self.steps[start:] = array("d", [self.steps[-1]])
        for name, choose in MERGED:
            values = getattr(self, name)
            values[start:] = array("d", [_of_finite(choose, values[start:])])

    def _drop_after(self, step: int) -> None:
        end = bisect_right(self.steps, step)
        for name in ("steps", "lowest", "highest", *SERIES):
            del getattr(self, name)[end:]
        self._whole = min(self._whole, end)
        self.evals = [entry for entry in self.evals if entry[0] <= step]
        self.samples = [sample for sample in self.samples if sample.get("step", 0) <= step]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _of_finite(choose: Callable[[Sequence[float]], float], values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return choose(finite) if finite else math.nan


MERGED: tuple[tuple[str, Callable[[Sequence[float]], float]], ...] = (*((name, _mean) for name in SERIES), ("lowest", min), ("highest", max))
"""How several values of a series become one."""


def _keep(events: list[Event], event: Event) -> None:
    """Add one, and let the oldest go in larger parts."""
    events.append(event)
    if len(events) > 2 * MESSAGES:
        del events[:-MESSAGES]
