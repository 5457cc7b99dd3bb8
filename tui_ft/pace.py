"""How fast long work goes and when it will be done, from what it reports."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from tui_ft import units

WINDOW = 15.0
"""Seconds that the rate looks back: long enough to be steady, short enough to follow a slow stretch."""


@dataclass
class Pace:
    """The pace of one stage of work. Every moment is `time.monotonic`, or whatever clock the caller uses throughout."""

    done: int = 0
    total: int | None = None
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def update(self, done: int, total: int | None, now: float | None = None) -> None:
        """Take a report in; going back (another pass begins) starts the measurement anew."""
        now = time.monotonic() if now is None else now
        if done < self.done:
            self._seen.clear()
        self.done, self.total = done, total
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """Items a second; None before two reports that differ."""
        if len(self._seen) < 2:
            return None
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return (after - before) / (last - first) if last > first and after > before else None

    @property
    def seconds_left(self) -> float | None:
        """None while the total or the rate is not known."""
        rate = self.rate
        return (self.total - self.done) / rate if rate and self.total is not None and self.total >= self.done else None

    @property
    def share(self) -> float | None:
        """0 to 1; None while the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None

    def text(self, unit: str = "") -> str:
        """`45 % · 8.1k rows/s · 2 min left`, or `12,000 rows · 8.1k rows/s` where nobody knows how many there are."""
        share, rate, left = self.share, self.rate, self.seconds_left
        parts = [f"{100 * share:.0f} %" if share is not None else f"{self.done:,}{f' {unit}' if unit else ''}"]
        parts += [f"{units.count(rate)}{f' {unit}' if unit else ''}/s"] if rate else []
        parts += [f"{units.duration(left)} left"] if left is not None and self.done != self.total else []
        return " · ".join(parts)
