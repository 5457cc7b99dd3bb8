"""Numbers to dots: binning, ticks, lines and characters. Knows nothing of a user interface.

A chart's x-axis is cut into *dot columns* (a braille cell has 2 × 4 dots). Each column keeps the lowest and the
highest value that fell into it, so a spike of one step among 100 000 stays visible, and new points are added to
the columns that are there: an update costs the new points, not the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Interval = tuple[float, float]


@dataclass(frozen=True)
class Glyphs:
    """The characters one kind of terminal can show."""

    dots: tuple[int, int]
    """Dots in a cell: across, down."""
    line: Sequence[str]
    """The character for each pattern of dots; bit `across * down_count + down` is a dot."""
    band: Sequence[str]
    """The same for what is drawn faintly behind the line."""
    levels: str
    """From low to high, for a chart of one row."""
    marker: str
    cross: str
    axis: tuple[str, str, str, str, str]
    """The y-axis plain and at a tick, the corner, the x-axis plain and at a tick."""


def _braille() -> list[str]:
    bits = (0x01, 0x02, 0x04, 0x40, 0x08, 0x10, 0x20, 0x80)  # dot numbers 1 2 3 7, 4 5 6 8: down the left, down the right
    return [chr(0x2800 + sum(bit for index, bit in enumerate(bits) if pattern >> index & 1)) for pattern in range(256)]


BRAILLE = Glyphs((2, 4), _braille(), _braille(), "▁▂▃▄▅▆▇█", "◆", "✗", ("│", "┤", "└", "─", "┬"))
BLOCKS = Glyphs((1, 2), " ▀▄█", " ▀▄█", "_▄█", "o", "x", ("│", "┤", "└", "─", "┬"))
ASCII = Glyphs((1, 2), " ***", " '.:", "_.-=*#", "o", "x", ("|", "+", "+", "-", "+"))


def glyphs_for(term: str, encoding: str) -> Glyphs:
    """What a terminal can show: the kernel's console has no braille, and without UTF-8 there is only ASCII."""
    if encoding.lower().replace("-", "") not in ("utf8", "utf16", "utf32"):
        return ASCII
    return BLOCKS if term == "linux" else BRAILLE


class Columns:
    """What fell into each of `count` dot columns over the steps `domain[0]`..`domain[1]`."""

    def __init__(self, count: int, domain: Interval) -> None:
        self.count = count
        self.domain = domain
        self.low = [math.inf] * count
        self.high = [-math.inf] * count
        self.total = [0.0] * count
        self.number = [0] * count
        self.broken = [False] * count
        """Whether a value that is not a number fell into the column: no line crosses it."""

    def add(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        start: int = 0,
        reach: tuple[Sequence[float], Sequence[float]] | None = None,
        stop: int | None = None,
    ) -> None:
        """Take in the points from index `start` on.

        Args:
            stop: the index before which to end; all by default.
            reach: where a point stands for several steps, the lowest and the highest value of each.
        """
        lows, highs = reach or (ys, ys)
        low, high, total, number, broken = self.low, self.high, self.total, self.number, self.broken
        first, width = self.domain[0], self.domain[1] - self.domain[0]
        last = self.count - 1
        scale = last / width if width > 0 else 0.0
        for index in range(start, len(xs) if stop is None else stop):
            column = int((xs[index] - first) * scale + 0.5)
            if not 0 <= column <= last:
                continue
            y = ys[index]
            if y - y != 0.0:  # infinite or not a number
                broken[column] = True
                continue
            if lows[index] < low[column]:
                low[column] = lows[index]
            if highs[index] > high[column]:
                high[column] = highs[index]
            total[column] += y
            number[column] += 1

    def band(self) -> list[Interval | None]:
        """Lowest and highest value of each column; between filled columns a straight line, None where nothing may be drawn."""
        return self._joined([(low, high) if number else None for low, high, number in zip(self.low, self.high, self.number, strict=True)])

    def average(self, window: int) -> list[Interval | None]:
        """The mean over `window` columns around each, as intervals of no height; it never looks across a broken column."""
        means: list[Interval | None] = [None] * self.count
        for start, stop in self._stretches():
            sums, counts = [0.0], [0]
            for column in range(start, stop):
                sums.append(sums[-1] + self.total[column])
                counts.append(counts[-1] + self.number[column])
            for column in range(start, stop):
                if self.number[column]:
                    reach = min(window // 2, column - start)  # short at the steep beginning, one-sided only at the newest end
                    left, right = column - start - reach, min(stop - start, column - start + reach + 1)
                    mean = (sums[right] - sums[left]) / (counts[right] - counts[left])
                    means[column] = (mean, mean)
        return self._joined(means)

    def _stretches(self) -> list[tuple[int, int]]:
        """The ranges of columns between broken ones, cut to what is filled."""
        edges = [-1, *(column for column in range(self.count) if self.broken[column]), self.count]
        stretches = []
        for before, after in pairwise(edges):
            filled = [column for column in range(before + 1, after) if self.number[column]]
            if filled:
                stretches.append((filled[0], filled[-1] + 1))
        return stretches

    def _joined(self, values: list[Interval | None]) -> list[Interval | None]:
        previous = -1
        for column in range(self.count):
            value = values[column]
            if self.broken[column]:
                previous = -1
                continue
            if value is None:
                continue
            before = values[previous] if previous >= 0 else None
            if before is not None:
                for between in range(previous + 1, column):
                    share = (between - previous) / (column - previous)
                    values[between] = (before[0] + (value[0] - before[0]) * share, before[1] + (value[1] - before[1]) * share)
            previous = column
        return values


@dataclass(frozen=True)
class Scale:
    """Values to dot rows: 0 is the top row, `rows - 1` the bottom one."""

    bottom: float
    top: float
    rows: int
    log: bool = False

    def row(self, value: float) -> int:
        """The dot row of a value, held within the plot."""
        share = (self._f(self.top) - self._f(value)) / (self._f(self.top) - self._f(self.bottom))
        return min(self.rows - 1, max(0, round(share * (self.rows - 1))))

    def _f(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    def ticks(self, count: int) -> list[float]:
        return log_ticks(self.bottom, self.top, count) if self.log else ticks(self.bottom, self.top, count)


def scale_of(values: Sequence[float], rows: int, log: bool = False) -> Scale | None:
    """The scale that shows all finite values, with a little air; None where there are none (for `log`: none above zero)."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return None
    bottom, top = min(finite), max(finite)
    if log:
        return Scale(bottom / 1.1, top * 1.1, rows, True)
    air = (top - bottom) * 0.04 or abs(top) * 0.1 or 0.5
    return Scale(bottom - air if bottom < 0 else max(0.0, bottom - air), top + air, rows)


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that cuts `span` into at most `count` parts."""
    if span <= 0 or count < 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if span / (factor * power) <= count * (1 + 1e-9))


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round values from `low` to `high`, a 1-2-5 step apart, about `count` of them at most."""
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """1, 2 and 5 times the powers of ten; only the powers, or each n-th of them, where those are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, math.ceil(len(powers) / max(1, count)))
    for factors, stride in (((1, 2, 5), 1), ((1,), 1), ((1,), every)):
        found = [factor * 10.0**power for power in powers[::stride] for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) <= count + 1:
            break
    return found if len(found) > 1 else ticks(low, high, count)


def number(value: float) -> str:
    """A value in few characters: 0.0123, 3.1, 12 k, 2e-05."""
    if not math.isfinite(value):
        return "not a number"
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-3:
        return f"{value:.2g}"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}"


def ceiling(value: float) -> float:
    """The next 1-2-5 number: where the x-axis ends while the number of steps is unknown."""
    return next((factor * 10.0**power for power in range(16) for factor in (1, 2, 5) if factor * 10.0**power >= value), value)


class Grid:
    """A plot of `width` × `height` cells, each a pattern of dots."""

    def __init__(self, width: int, height: int, glyphs: Glyphs) -> None:
        self.cells = [[0] * width for _ in range(height)]
        self.glyphs = glyphs

    def draw(self, intervals: Sequence[Interval | None], scale: Scale) -> None:
        """One interval a dot column, joined with its neighbour so that the line has no holes."""
        before: tuple[int, int] | None = None
        for column, interval in enumerate(intervals):
            if interval is None:
                before = None
                continue
            top, bottom = scale.row(interval[1]), scale.row(interval[0])
            first, last = top, bottom
            if before is not None:
                first = min(first, before[1] + 1) if before[1] < top else first
                last = max(last, before[0] - 1) if before[0] > bottom else last
            self._column(column, first, last)
            before = (top, bottom)

    def _column(self, column: int, first: int, last: int) -> None:
        """Set the dots from row `first` to row `last`, a cell at a time."""
        across, down = self.glyphs.dots
        cell, shift = column // across, (column % across) * down
        for row in range(first // down, last // down + 1):
            high, low = max(0, first - row * down), min(down - 1, last - row * down)
            self.cells[row][cell] |= ((1 << (low + 1)) - (1 << high)) << shift


def levels(columns: Columns, glyphs: Glyphs) -> str:
    """A chart of one row: the highest value of each column, between the lowest and the highest of all."""
    band = columns.band()
    filled = [value[1] for value in band if value]
    if not filled:
        return " " * columns.count
    low, high = min(filled), max(filled)
    steps, last = glyphs.levels, len(glyphs.levels) - 1
    text = []
    for value, broken in zip(band, columns.broken, strict=True):
        if value is None:
            text.append(glyphs.cross if broken else " ")
        else:
            text.append(steps[round((value[1] - low) / (high - low) * last) if high > low else last // 2])
    return "".join(text)
