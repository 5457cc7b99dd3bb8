"""The loss curve of a run, and its little sisters of one row. Line API: only rows that changed are sent to the terminal."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.geometry import Region
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui_ft.tui.widgets import picture
from tui_ft.tui.widgets.raster import Columns, Glyphs, ceiling, glyphs_for, levels


def terminal_glyphs() -> Glyphs:
    """What this terminal can show."""
    return glyphs_for(os.environ.get("TERM", ""), getattr(sys.__stdout__, "encoding", None) or "utf-8")


class StepColumns:
    """Columns that follow a growing series: new points are added, and all is binned anew only when it must be.

    It must when the width or the domain changes, or when a resumed attempt took steps back; that is seen by the
    newest point binned so far not being there any more.
    """

    def __init__(self) -> None:
        self.columns = Columns(1, (0, 1))
        self._done = 0
        self._newest: tuple[float, float] = (0, 0)

    def follow(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        count: int,
        domain: tuple[float, float],
        reach: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> Columns:
        end = self._done - 1
        same = end < 0 or (end < len(xs) and xs[end] == self._newest[0] and (ys[end] == self._newest[1] or ys[end] != ys[end]))
        if not same or self.columns.count != count or self.columns.domain != domain:
            self.columns, self._done = Columns(count, domain), 0
        self.columns.add(xs, ys, self._done, reach)
        self._done = len(xs)
        if xs:
            self._newest = (xs[-1], ys[-1])
        return self.columns


def domain_of(xs: Sequence[float], total: int | None) -> tuple[float, float]:
    """[0, total steps]; while the total is unknown, up to the next round number."""
    last = xs[-1] if xs else 0
    return 0, max(float(total or 0), last) if total else ceiling(max(10.0, last))


def diverged_at(xs: Sequence[float], ys: Sequence[float]) -> int | None:
    """The step from which on no loss was a number any more; None while the newest one is."""
    index = len(ys)
    while index and not math.isfinite(ys[index - 1]):
        index -= 1
    return int(xs[index]) if index < len(ys) else None


class LossChart(Widget):
    """Training loss over optimizer steps: faint from lowest to highest, bright the moving average, validation as marks."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"loss-chart--{role}" for role in ("blank", "axis", "band", "line", "validation", "legend", "alarm")}
    DEFAULT_CSS = """
    LossChart { height: 1fr; width: 1fr; min-height: 1; }
    LossChart > .loss-chart--axis { color: $foreground 55%; }
    LossChart > .loss-chart--band { color: $primary 45%; }
    LossChart > .loss-chart--line { color: $primary-lighten-2; text-style: bold; }
    LossChart > .loss-chart--validation { color: $warning; text-style: bold; }
    LossChart > .loss-chart--legend { color: $foreground 70%; }
    LossChart > .loss-chart--alarm { color: $error; text-style: bold; }
    """
    log_scale: reactive[bool] = reactive(False)

    def __init__(self, glyphs: Glyphs | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.glyphs = glyphs or terminal_glyphs()
        self._steps: Sequence[float] = ()
        self._loss: Sequence[float] = ()
        self._reach: tuple[Sequence[float], Sequence[float]] | None = None
        self._marks: picture.Marks = ()
        self._total: int | None = None
        self._binned = StepColumns()
        self._rows: list[picture.Row] = []

    def show(
        self,
        steps: Sequence[float],
        loss: Sequence[float],
        marks: picture.Marks = (),
        total: int | None = None,
        reach: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        """Show these series (kept by reference; they may grow between calls).

        Args:
            steps: optimizer steps, rising.
            loss: the loss at each of them; NaN where it was not a number.
            marks: (step, validation loss).
            total: the steps of the whole run, where known.
            reach: where points stand for several steps, the lowest and the highest loss of each.
        """
        self._steps, self._loss, self._marks, self._total, self._reach = steps, loss, marks, total, reach
        self._redraw()

    @property
    def badge(self) -> str:
        """The alarm in words; empty while the loss is a number."""
        step = diverged_at(self._steps, self._loss)
        return "" if step is None else f"diverged at step {step}"

    def rows_as_text(self) -> list[str]:
        """What is shown, without colours: for tests and for copying."""
        return ["".join(text for text, _ in row) for row in self._rows]

    def watch_log_scale(self) -> None:
        self._redraw()

    def on_resize(self) -> None:
        self._redraw()

    def _redraw(self) -> None:
        width, height = self.content_size
        if not width or not height:
            return
        layout = picture.layout_for(width, height)
        count = max(1, layout.plot[0]) * self.glyphs.dots[0]
        columns = self._binned.follow(self._steps, self._loss, count, domain_of(self._steps, self._total), self._reach)
        rows = picture.draw(columns, self._marks, layout, self.glyphs, log=self.log_scale, badge=self.badge)
        before, self._rows = self._rows, rows
        changed = [y for y, row in enumerate(rows) if y >= len(before) or row != before[y]]
        if len(before) != len(rows):
            self.refresh()
        elif changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        if y >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        segments = [Segment(text, self.get_component_rich_style(f"loss-chart--{role}")) for text, role in self._rows[y]]
        return Strip(segments, sum(len(text) for text, _ in self._rows[y]))


class StepSparkline(Widget):
    """One series in one row: name, curve over the same steps as the loss chart, newest value."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"step-sparkline--name", "step-sparkline--curve", "step-sparkline--value"}
    DEFAULT_CSS = """
    StepSparkline { height: 1; width: 1fr; }
    StepSparkline > .step-sparkline--name { color: $foreground 70%; }
    StepSparkline > .step-sparkline--curve { color: $secondary; }
    StepSparkline > .step-sparkline--value { text-style: bold; }
    """

    def __init__(self, name: str, value_width: int = 9, glyphs: Glyphs | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self.label = name.ljust(6)
        self.glyphs = glyphs or terminal_glyphs()
        self.value = ""
        self._value_width = value_width
        self._binned = StepColumns()
        self._series: tuple[Sequence[float], Sequence[float], int | None] = ((), (), None)
        self._curve = ""

    def show(self, steps: Sequence[float], values: Sequence[float], total: int | None, value: str) -> None:
        """Show a series with its newest value as text."""
        self._series, self.value = (steps, values, total), value
        self._redraw()

    def on_resize(self) -> None:
        self._redraw()

    def _redraw(self) -> None:
        width = self.content_size.width - len(self.label) - self._value_width - 2
        steps, values, total = self._series
        before = self._curve, self.value
        if width > 0:
            self._curve = levels(self._binned.follow(steps, values, width, domain_of(steps, total)), self.glyphs)
        if (self._curve, self.value) != before or width <= 0:
            self.refresh()

    def render_line(self, y: int) -> Strip:
        name, curve, value = (self.get_component_rich_style(f"step-sparkline--{part}") for part in ("name", "curve", "value"))
        text = self.value[: self._value_width]
        strip = Strip([Segment(f"{self.label} ", name), Segment(self._curve, curve), Segment(" " + text.ljust(self._value_width), value)])
        return strip.adjust_cell_length(self.size.width, self.rich_style)
