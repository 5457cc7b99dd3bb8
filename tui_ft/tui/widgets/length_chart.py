"""How many samples are how long, with the maximum as a line that moves: what stands right of it is too long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from tui_ft.data.lengths import Entry, histogram
from tui_ft.tui import keys
from tui_ft.tui.widgets.loss_chart import terminal_glyphs
from tui_ft.tui.widgets.picture import Canvas, Row
from tui_ft.tui.widgets.raster import ASCII, Glyphs, nice_step, number, ticks

_USUAL = 0.98
"""So many of the samples stand within the chart; a few very long ones would make all others one bar."""


def top_of(entries: Sequence[Entry], maximum: int) -> int:
    """The right end of the axis in tokens: a round number beyond most samples and beyond the maximum."""
    total, counted, usual = sum(count for _, _, count in entries), 0, 0
    for length, _, count in entries:
        counted += count
        usual = length
        if counted >= _USUAL * total:
            break
    longest = entries[-1][0] if entries else 0
    wanted = max(min(longest, usual * 1.3), maximum * 1.1, 16)
    step = nice_step(wanted, 8)
    return int(math.ceil(wanted / step) * step)


def draw(entries: Sequence[Entry], maximum: int, width: int, height: int, glyphs: Glyphs) -> list[Row]:
    """The chart as rows: the maximum by its number, bars, axis, its labels."""
    canvas = Canvas(width, height)
    if width < 8 or height < 4:
        return canvas.rows()
    top = top_of(entries, maximum)
    bars, rows = histogram(entries, width, top), height - 3
    line = min(width - 1, maximum * width // top)
    _bars(canvas, bars, line, rows, glyphs)
    for y in range(rows + 1):
        canvas.put(line, y + 1, glyphs.axis[0], "validation")
    label = f"{maximum:,} tokens"
    canvas.put(max(0, min(line - len(label) // 2, width - len(label))), 0, label, "validation")
    _axis(canvas, top, line, rows + 1, glyphs)
    return canvas.rows()


def _bars(canvas: Canvas, bars: Sequence[int], line: int, rows: int, glyphs: Glyphs) -> None:
    """One bar a cell, in as many parts of a cell as there are characters for; a single sample is always seen."""
    parts, most = len(glyphs.levels), max(bars, default=0) or 1
    full_beyond = ":" if glyphs is ASCII else "▒"
    for x, count in enumerate(bars):
        filled = -(-count * rows * parts // most)
        beyond = x > line
        for level in range(-(-filled // parts)):
            char = glyphs.levels[min(parts, filled - level * parts) - 1]
            if beyond and char == glyphs.levels[-1]:
                char = full_beyond  # told apart without colour too
            canvas.put(x, rows - level, char, "alarm" if beyond else "line")


def _axis(canvas: Canvas, top: int, line: int, y: int, glyphs: Glyphs) -> None:
    canvas.put(0, y, glyphs.axis[3] * canvas.width, "axis")
    free = 0
    for value in ticks(0, top, max(2, canvas.width // 12)):
        x = min(canvas.width - 1, int(value) * canvas.width // top)
        label = number(value)
        begin = min(max(0, x - len(label) // 2), canvas.width - len(label))
        if begin >= free:
            canvas.put(x, y, glyphs.axis[4], "axis")
            canvas.put(begin, y + 1, label, "axis")
            free = begin + len(label) + 1
    canvas.put(line, y, glyphs.axis[0], "validation")


class LengthChart(Widget, can_focus=True):
    """Follows the maximum within a frame: all it shows is counted from the table."""

    BINDINGS = keys.bindings("lengths")  # type: ignore[assignment]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"length-chart--{role}" for role in ("blank", "line", "alarm", "validation", "axis")}
    DEFAULT_CSS = """
    LengthChart { height: 1fr; width: 1fr; min-width: 20; }
    LengthChart > .length-chart--line { color: $primary; }
    LengthChart > .length-chart--alarm { color: $warning; }
    LengthChart > .length-chart--validation { color: $accent; text-style: bold; }
    LengthChart > .length-chart--axis { color: $foreground 55%; }
    LengthChart:focus > .length-chart--axis { color: $foreground; }
    """

    def __init__(self, glyphs: Glyphs | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self.glyphs = glyphs or terminal_glyphs()
        self._entries: Sequence[Entry] = ()
        self._maximum = 0
        self._rows: list[Row] = []

    def show(self, entries: Sequence[Entry], maximum: int) -> None:
        self._entries, self._maximum = entries, maximum
        self._redraw()

    def rows_as_text(self) -> list[str]:
        """What is shown, without colours."""
        return ["".join(text for text, _ in row) for row in self._rows]

    def on_resize(self) -> None:
        self._redraw()

    def _redraw(self) -> None:
        rows = draw(self._entries, self._maximum, self.size.width, self.size.height, self.glyphs)
        if rows != self._rows:
            self._rows = rows
            self.refresh()

    def render_line(self, y: int) -> Strip:
        if y >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        return Strip([Segment(text, self.get_component_rich_style(f"length-chart--{role}")) for text, role in self._rows[y]])
