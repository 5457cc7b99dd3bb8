"""A loss chart as rows of text, each piece with its role; the widget only adds colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from tui_ft.tui.widgets.raster import Columns, Glyphs, Grid, Scale, number, scale_of, ticks

Role = Literal["blank", "axis", "band", "line", "validation", "legend", "alarm", "cursor", "run-a", "run-b", "run-c", "run-d", "run-e", "run-f"]
RUNS: tuple[Role, ...] = ("run-a", "run-b", "run-c", "run-d", "run-e", "run-f")
"""Of several runs on one chart, each with a letter of its own."""
Span = tuple[str, Role]
Row = list[Span]
Marks = Sequence[tuple[float, float]]

AVERAGED = 1 / 30
"""The moving average spans this share of the plot's width: the same smoothness at 60 steps and at 100 000."""


@dataclass
class Canvas:
    """Characters with roles; what is written later lies on top."""

    width: int
    height: int
    text: list[list[str]] = field(init=False)
    roles: list[list[Role]] = field(init=False)

    def __post_init__(self) -> None:
        self.text = [[" "] * self.width for _ in range(self.height)]
        self.roles = [["blank"] * self.width for _ in range(self.height)]

    def put(self, x: int, y: int, text: str, role: Role) -> None:
        """Write `text` from cell (x, y) on; what does not fit is cut."""
        if 0 <= y < self.height:
            for offset, char in enumerate(text):
                if 0 <= x + offset < self.width:
                    self.text[y][x + offset], self.roles[y][x + offset] = char, role

    def is_free(self, x: int, y: int, width: int) -> bool:
        return all(role == "blank" for role in self.roles[y][max(0, x) : x + width])

    def rows(self) -> list[Row]:
        rows: list[Row] = []
        for chars, roles in zip(self.text, self.roles, strict=True):
            row: Row = []
            for role, group in groupby(zip(chars, roles, strict=True), key=lambda pair: pair[1]):
                row.append(("".join(char for char, _ in group), role))
            rows.append(row)
        return rows


@dataclass(frozen=True)
class Cursor:
    """A step that is looked at, with what is told of it in place of the newest values."""

    step: float
    words: str


@dataclass(frozen=True)
class Layout:
    """Where the plot stands within the widget."""

    width: int
    height: int
    gutter: int = 7
    """Cells for the y labels and the axis."""
    footer: int = 2
    """Rows for the x-axis and its labels."""

    @property
    def plot(self) -> tuple[int, int]:
        return max(0, self.width - self.gutter), max(0, self.height - self.footer)


def layout_for(width: int, height: int) -> Layout:
    """Small charts give their axis up before they give the curve up."""
    return Layout(width, height, gutter=7 if width >= 30 else 0, footer=2 if height >= 6 else 0)


def draw(
    columns: Columns, marks: Marks, layout: Layout, glyphs: Glyphs, *, log: bool = False, badge: str = "", cursor: Cursor | None = None
) -> list[Row]:
    """The whole chart of one run.

    Args:
        columns: the training loss, `layout.plot[0] * glyphs.dots[0]` columns wide.
        marks: (step, validation loss), shown as markers of their own.
        log: logarithmic y-axis.
        badge: an alarm in words, shown in the upper right corner.
    """
    canvas = Canvas(layout.width, layout.height)
    width, height = layout.plot
    band = columns.band()
    marks = [(x, y) for x, y in marks if columns.domain[0] <= x <= columns.domain[1]]
    extremes = [value for interval in band if interval for value in interval] + [y for _, y in marks]
    scale = scale_of(extremes, height * glyphs.dots[1], log)
    if width < 2 or height < 1:
        return canvas.rows()
    if scale:
        _curves(canvas, columns, band, scale, layout, glyphs)
        _y_axis(canvas, scale, layout, glyphs)
        _markers(canvas, marks, columns, scale, layout, glyphs)
    else:
        canvas.put(layout.gutter + 1, height // 2, "waiting for the first step" if not badge else "no loss that is a number", "legend")
    if layout.footer:
        _x_axis(canvas, columns, layout, glyphs)
    if cursor:
        _cursor(canvas, cursor, columns, layout, glyphs)
    _legend(canvas, cursor.words if cursor else f"loss {_newest(columns)}", [] if cursor else marks, layout, glyphs, log, badge, cursor is not None)
    return canvas.rows()


def draw_together(runs: Sequence[Columns], layout: Layout, glyphs: Glyphs, *, log: bool = False, cursor: Cursor | None = None) -> list[Row]:
    """The moving averages of up to six runs over each other, each with its letter at its newest point.

    Args:
        runs: the training loss of each, over the same domain; as wide as for `draw`.
    """
    canvas = Canvas(layout.width, layout.height)
    width, height = layout.plot
    if width < 2 or height < 1:
        return canvas.rows()
    averages = [columns.average(_window(columns)) for columns in runs]
    scale = scale_of([interval[0] for average in averages for interval in average if interval], height * glyphs.dots[1], log)
    if scale is None:
        canvas.put(layout.gutter + 1, height // 2, "no loss to show yet", "legend")
        return canvas.rows()
    for role, average in zip(RUNS, averages, strict=False):
        grid = Grid(width, height, glyphs)
        grid.draw(average, scale)
        for y in range(height):
            for x, dots in enumerate(grid.cells[y]):
                if dots:
                    canvas.put(layout.gutter + x, y, glyphs.line[dots], role)
    _y_axis(canvas, scale, layout, glyphs)
    if layout.footer:
        _x_axis(canvas, runs[0], layout, glyphs)
    if cursor:
        _cursor(canvas, cursor, runs[0], layout, glyphs)
    for role, average in zip(RUNS, averages, strict=False):
        ends = [(column, interval[0]) for column, interval in enumerate(average) if interval]
        if ends:
            column, value = ends[-1]
            canvas.put(layout.gutter + column // glyphs.dots[0], scale.row(value) // glyphs.dots[1], role[-1].upper(), role)
    words = " log " if log else ""
    words = f" {cursor.words}{words}" if cursor else words
    canvas.put(max(layout.gutter, layout.width - len(words) - 1), 0, words, "legend")
    return canvas.rows()


def _cursor(canvas: Canvas, cursor: Cursor, columns: Columns, layout: Layout, glyphs: Glyphs) -> None:
    """A line from top to bottom that leaves the curves in sight."""
    cell = _cell(cursor.step, columns, layout)
    if cell is None:
        return
    for y in range(layout.plot[1]):
        if canvas.is_free(layout.gutter + cell, y, 1) or canvas.roles[y][layout.gutter + cell] == "band":
            canvas.put(layout.gutter + cell, y, glyphs.axis[0], "cursor")


def _curves(canvas: Canvas, columns: Columns, band: Sequence[tuple[float, float] | None], scale: Scale, layout: Layout, glyphs: Glyphs) -> None:
    width, height = layout.plot
    faint, bright = Grid(width, height, glyphs), Grid(width, height, glyphs)
    faint.draw(band, scale)
    bright.draw(columns.average(_window(columns)), scale)
    for y in range(height):
        for x, (below, above) in enumerate(zip(faint.cells[y], bright.cells[y], strict=True)):
            if above:
                canvas.put(layout.gutter + x, y, glyphs.line[above], "line")
            elif below:
                canvas.put(layout.gutter + x, y, glyphs.band[below], "band")


def _y_axis(canvas: Canvas, scale: Scale, layout: Layout, glyphs: Glyphs) -> None:
    if not layout.gutter:
        return
    height = layout.plot[1]
    labels = {scale.row(value) // glyphs.dots[1]: number(value) for value in scale.ticks(max(3, min(height // 2, height // 3 + 2)))}
    for y in range(height):
        canvas.put(0, y, labels.get(y, "")[: layout.gutter - 1].rjust(layout.gutter - 2), "axis")
        canvas.put(layout.gutter - 1, y, glyphs.axis[1 if y in labels else 0], "axis")


def _markers(canvas: Canvas, marks: Marks, columns: Columns, scale: Scale, layout: Layout, glyphs: Glyphs) -> None:
    for x, y in marks:
        cell = _cell(x, columns, layout)
        if math.isfinite(y) and cell is not None and (y > 0 or not scale.log):
            canvas.put(layout.gutter + cell, scale.row(y) // glyphs.dots[1], glyphs.marker, "validation")


def _cell(x: float, columns: Columns, layout: Layout) -> int | None:
    first, last = columns.domain
    width = layout.plot[0]
    cell = round((x - first) / (last - first) * (width - 1)) if last > first else 0
    return cell if 0 <= cell < width else None


def _x_axis(canvas: Canvas, columns: Columns, layout: Layout, glyphs: Glyphs) -> None:
    width, y = layout.plot[0], layout.plot[1]
    canvas.put(max(0, layout.gutter - 1), y, glyphs.axis[2] + glyphs.axis[3] * width, "axis")
    free = 0
    for value in ticks(*columns.domain, max(2, width // 10)):
        cell = _cell(value, columns, layout)
        if cell is None or value != int(value):
            continue
        canvas.put(layout.gutter + cell, y, glyphs.axis[4], "axis")
        label = number(value)
        x = min(max(0, layout.gutter + cell - len(label) // 2), layout.width - len(label))
        if x >= free:
            canvas.put(x, y + 1, label, "axis")
            free = x + len(label) + 1
    across = glyphs.dots[0]
    for column, broken in enumerate(columns.broken):
        if broken:
            canvas.put(layout.gutter + column // across, y, glyphs.cross, "alarm")


def _newest(columns: Columns) -> str:
    """The newest point of the moving average."""
    averaged = [interval for interval in columns.average(_window(columns)) if interval]
    return f"{averaged[-1][0]:.3f}" if averaged else ""


def _window(columns: Columns) -> int:
    return max(3, round(columns.count * AVERAGED))


def _legend(canvas: Canvas, words: str, marks: Marks, layout: Layout, glyphs: Glyphs, log: bool, badge: str, is_asked: bool) -> None:
    """Names what is drawn with its newest value, as far right in the first row as no curve is hidden; what was asked for hides one."""
    parts: list[Span] = [(glyphs.line[-1] if glyphs.dots != (2, 4) else "⠒⠒", "line"), (f" {words} ", "legend")]
    if marks:
        value = f"{marks[-1][1]:.3f}" if math.isfinite(marks[-1][1]) else "not a number"
        parts += [(f" {glyphs.marker}", "validation"), (f" validation {value} ", "legend")]
    if log:
        parts.append((" log ", "legend"))
    width = sum(len(text) for text, _ in parts)
    right = layout.width - width - 1
    x = right if canvas.is_free(right, 0, width) else next((x for x in range(right, layout.gutter, -1) if canvas.is_free(x, 0, width)), None)
    if x is None and is_asked:
        x = max(layout.gutter + 1, right)
    if x is not None and x > layout.gutter:
        for text, role in parts:
            canvas.put(x, 0, text, role)
            x += len(text)
    if badge:
        text = f" {glyphs.cross} {badge} "
        canvas.put(max(layout.gutter, layout.width - len(text) - 1), min(1, layout.height - 1), text, "alarm")
