"""The loss curve of a run, and its little sisters of one row. Line API: only rows that changed are sent to the terminal."""

from __future__ import annotations

import math
import os
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

from rich.segment import Segment
from textual.geometry import Region
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui_ft.tui import terminal
from tui_ft.tui.widgets import picture
from tui_ft.tui.widgets.raster import ASCII, Columns, Glyphs, ceiling, glyphs_for, levels, number
from tui_ft.tui.widgets.view import Domain, View


def terminal_glyphs() -> Glyphs:
    """What this terminal can show."""
    return ASCII if terminal.only_ascii else glyphs_for(os.environ.get("TERM", ""), getattr(sys.__stdout__, "encoding", None) or "utf-8")


@dataclass
class _Binned:
    """Columns with what was put into them."""

    columns: Columns
    done: int = 0
    newest: tuple[float, float] = (0.0, 0.0)

    def holds(self, xs: Sequence[float], ys: Sequence[float]) -> bool:
        """Whether the points that were binned are still the series' first ones: the newest of them is where it was."""
        end = self.done - 1
        return end < 0 or (end < len(xs) and xs[end] == self.newest[0] and (ys[end] == self.newest[1] or ys[end] != ys[end]))


class StepColumns:
    """Columns that follow a growing series: new points are added, and all is binned anew only when it must be.

    It must when the width or the domain changes, or when a resumed attempt took steps back. The last two domains are kept: a zoom is left by
    one key, and binning twenty thousand points costs a frame.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, Domain], _Binned] = {}

    def follow(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        count: int,
        domain: Domain,
        reach: tuple[Sequence[float], Sequence[float]] | None = None,
        settled: int | None = None,
    ) -> Columns:
        """The columns of a series as it is now.

        Args:
            xs: rising.
            reach: as `Columns.add` takes it.
            settled: only so many points are taken in, those behind them being about to become one; all by default. A long run's newest few steps,
                less than a column, cost a binning of all the others each time they are put together.
        """
        stop = len(xs) if settled is None else min(settled, len(xs))
        binned = self._kept.pop((count, domain), None)
        if binned is None or not binned.holds(xs, ys):
            binned = _Binned(Columns(count, domain), done=bisect_left(xs, domain[0]))
        if stop > binned.done:
            binned.columns.add(xs, ys, binned.done, reach, stop)
            binned.done, binned.newest = stop, (xs[stop - 1], ys[stop - 1])
        self._kept = dict([*self._kept.items(), ((count, domain), binned)][-2:])
        return binned.columns


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


class Chart(Widget):
    """A chart over optimizer steps that can be zoomed, moved and asked. Subclasses say what there is, and draw `self.rows`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"chart--{role}" for role in get_args(picture.Role)}
    DEFAULT_CSS = """
    Chart { height: 1fr; width: 1fr; min-height: 1; }
    Chart > .chart--axis { color: $foreground 55%; }
    Chart > .chart--band { color: $primary 45%; }
    Chart > .chart--line { color: $primary-lighten-2; text-style: bold; }
    Chart > .chart--validation { color: $warning; text-style: bold; }
    Chart > .chart--legend { color: $foreground 70%; }
    Chart > .chart--alarm { color: $error; text-style: bold; }
    Chart > .chart--cursor { color: $accent; }
    Chart > .chart--run-a { color: $primary-lighten-2; text-style: bold; }
    Chart > .chart--run-b { color: $warning; text-style: bold; }
    Chart > .chart--run-c { color: $success; text-style: bold; }
    Chart > .chart--run-d { color: $error; text-style: bold; }
    Chart > .chart--run-e { color: $secondary; text-style: bold; }
    Chart > .chart--run-f { color: $foreground; text-style: bold; }
    """
    log_scale: reactive[bool] = reactive(False)
    view: reactive[View] = reactive(View())

    def __init__(self, glyphs: Glyphs | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.glyphs = glyphs or terminal_glyphs()
        self._rows: list[picture.Row] = []

    @property
    def whole(self) -> Domain:
        """The first and the last step of all."""
        raise NotImplementedError

    @property
    def newest(self) -> float:
        """The newest step that was measured."""
        raise NotImplementedError

    def draw(self, layout: picture.Layout) -> list[picture.Row]:
        """The rows as they are now."""
        raise NotImplementedError

    @property
    def domain(self) -> Domain:
        """The first and the last step in sight."""
        return self.view.domain(self.whole)

    def zoom(self, factor: float) -> None:
        """Show so many times as many steps."""
        self.view = self.view.zoomed(self.whole, self.newest, factor)

    def pan(self, share: float) -> None:
        """Move by a share of what is in sight."""
        self.view = self.view.panned(self.whole, share)

    def move_cursor(self, cells: int) -> None:
        """Move the cursor by so many cells; the first time it appears."""
        first, last = self.domain
        width = picture.layout_for(*self.content_size).plot[0]
        self.view = self.view.moved(self.whole, self.newest, cells * max(1.0, (last - first) / max(1, width - 1)))

    def rows_as_text(self) -> list[str]:
        """What is shown, without colours: for tests and for copying."""
        return ["".join(text for text, _ in row) for row in self._rows]

    def watch_log_scale(self) -> None:
        self.redraw()

    def watch_view(self) -> None:
        self.redraw()

    def on_resize(self) -> None:
        self.redraw()

    def redraw(self) -> None:
        """Draw anew; only the rows that changed go to the terminal."""
        width, height = self.content_size
        if not width or not height:
            return
        rows = self.draw(picture.layout_for(width, height))
        before, self._rows = self._rows, rows
        changed = [y for y, row in enumerate(rows) if y >= len(before) or row != before[y]]
        if len(before) != len(rows):
            self.refresh()
        elif changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        if y >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        segments = [Segment(text, self.get_component_rich_style(f"chart--{role}")) for text, role in self._rows[y]]
        return Strip(segments, sum(len(text) for text, _ in self._rows[y]))


class LossChart(Chart):
    """Training loss over optimizer steps: faint from lowest to highest, bright the moving average, validation as marks."""

    def __init__(self, glyphs: Glyphs | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(glyphs, id, classes)
        self._steps: Sequence[float] = ()
        self._loss: Sequence[float] = ()
        self._reach: tuple[Sequence[float], Sequence[float]] | None = None
        self._marks: picture.Marks = ()
        self._total: int | None = None
        self._seen = 0.0
        self._settled: int | None = None
        self._binned = StepColumns()

    def show(
        self,
        steps: Sequence[float],
        loss: Sequence[float],
        marks: picture.Marks = (),
        total: int | None = None,
        reach: tuple[Sequence[float], Sequence[float]] | None = None,
        settled: int | None = None,
    ) -> None:
        """Show these series (kept by reference; they may grow between calls).

        Args:
            steps: optimizer steps, rising.
            loss: the loss at each of them; NaN where it was not a number.
            marks: (step, validation loss).
            total: the steps of the whole run, where known.
            reach: where points stand for several steps, the lowest and the highest loss of each.
            settled: as `StepColumns.follow` takes it.
        """
        self._settled = settled
        self._steps, self._loss, self._marks, self._total, self._reach = steps, loss, marks, total, reach
        before, self._seen = self._seen, self.newest
        self.set_reactive(Chart.view, self.view.following(before, self._seen))
        self.redraw()

    @property
    def whole(self) -> tuple[float, float]:
        return domain_of(self._steps, self._total)

    @property
    def newest(self) -> float:
        return self._steps[-1] if self._steps else 0.0

    @property
    def badge(self) -> str:
        """The alarm in words; empty while the loss is a number."""
        step = diverged_at(self._steps, self._loss)
        return "" if step is None else f"diverged at step {step}"

    def draw(self, layout: picture.Layout) -> list[picture.Row]:
        count = max(1, layout.plot[0]) * self.glyphs.dots[0]
        columns = self._binned.follow(self._steps, self._loss, count, self.domain, self._reach, self._settled)
        return picture.draw(columns, self._marks, layout, self.glyphs, log=self.log_scale, badge=self.badge, cursor=self._cursor())

    def _cursor(self) -> picture.Cursor | None:
        """The measured step next to the cursor, with its loss, the range it stands for, and the newest validation up to there."""
        if self.view.cursor is None or not self._steps:
            return None
        index = min(len(self._steps) - 1, bisect_left(self._steps, self.view.cursor))
        words = f"step {self._steps[index]:.0f}: loss {number(self._loss[index])}"
        if self._reach and self._reach[0][index] < self._reach[1][index]:
            words += f" ({number(self._reach[0][index])} to {number(self._reach[1][index])})"
        validated = [(step, loss) for step, loss in self._marks if step <= self._steps[index]]
        if validated:
            words += f" · validation {number(validated[-1][1])} at {validated[-1][0]:.0f}"
        return picture.Cursor(self._steps[index], words)


class RunsChart(Chart):
    """The losses of several runs over each other, by their steps."""

    def __init__(self, glyphs: Glyphs | None = None, id: str | None = None) -> None:
        super().__init__(glyphs, id)
        self._runs: Sequence[tuple[Sequence[float], Sequence[float], int | None]] = ()
        self._binned = [StepColumns() for _ in picture.RUNS]

    def show(self, runs: Sequence[tuple[Sequence[float], Sequence[float], int | None]]) -> None:
        """Show up to six runs, each as steps, losses, and the steps of the whole run where known."""
        self._runs = runs[: len(picture.RUNS)]
        self.redraw()

    @property
    def whole(self) -> tuple[float, float]:
        return 0.0, max((domain_of(steps, total)[1] for steps, _, total in self._runs), default=1.0)

    @property
    def newest(self) -> float:
        return max((steps[-1] for steps, _, _ in self._runs if steps), default=0.0)

    def draw(self, layout: picture.Layout) -> list[picture.Row]:
        count = max(1, layout.plot[0]) * self.glyphs.dots[0]
        columns = [binned.follow(steps, loss, count, self.domain) for binned, (steps, loss, _) in zip(self._binned, self._runs, strict=False)]
        return picture.draw_together(columns, layout, self.glyphs, log=self.log_scale, cursor=self._cursor())

    def _cursor(self) -> picture.Cursor | None:
        """The loss of each run at the cursor's step."""
        place = self.view.cursor
        if place is None:
            return None
        told = []
        for role, (steps, loss, _) in zip(picture.RUNS, self._runs, strict=False):
            index = bisect_left(steps, place)
            told.append(f"{role[-1].upper()} {number(loss[index]) if index < len(steps) else '–'}")
        return picture.Cursor(place, f"step {place:.0f}: {'  '.join(told)}")


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
        self._series: tuple[Sequence[float], Sequence[float], Domain] = ((), (), (0.0, 1.0))
        self._settled: int | None = None
        self._curve = ""

    def show(self, steps: Sequence[float], values: Sequence[float], domain: Domain, value: str, settled: int | None = None) -> None:
        """Show a series over the steps in sight, with its newest value as text; `settled` as `StepColumns.follow` takes it."""
        self._series, self.value, self._settled = (steps, values, domain), value, settled
        self._redraw()

    def on_resize(self) -> None:
        self._redraw()

    def _redraw(self) -> None:
        width = self.content_size.width - len(self.label) - self._value_width - 2
        steps, values, domain = self._series
        before = self._curve, self.value
        if width > 0:
            self._curve = levels(self._binned.follow(steps, values, width, domain, settled=self._settled), self.glyphs)
        if (self._curve, self.value) != before or width <= 0:
            self.refresh()

    def render_line(self, y: int) -> Strip:
        name, curve, value = (self.get_component_rich_style(f"step-sparkline--{part}") for part in ("name", "curve", "value"))
        text = self.value[: self._value_width]
        strip = Strip([Segment(f"{self.label} ", name), Segment(self._curve, curve), Segment(" " + text.ljust(self._value_width), value)])
        return strip.adjust_cell_length(self.size.width, self.rich_style)
