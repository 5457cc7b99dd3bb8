"""Which part of a run a chart shows, and where its cursor stands. Knows nothing of a user interface."""

from __future__ import annotations

from dataclasses import dataclass, replace

Domain = tuple[float, float]

NARROWEST = 4.0
"""Steps that are shown at least."""


@dataclass(frozen=True)
class View:
    """A part of the steps, or all of them; with a cursor on one of them, or none."""

    window: Domain | None = None
    """None: all steps, also those to come."""
    cursor: float | None = None

    def domain(self, whole: Domain) -> Domain:
        """The first and the last step that are shown.

        Args:
            whole: those of the whole run; a window that reaches out of it is pushed back.
        """
        if self.window is None:
            return whole
        width = min(self.window[1] - self.window[0], whole[1] - whole[0])
        first = min(max(self.window[0], whole[0]), whole[1] - width)
        return first, first + width

    def zoomed(self, whole: Domain, newest: float, factor: float) -> View:
        """Shows `factor` times as many steps, around the cursor, without one around the newest step in sight."""
        first, last = self.domain(whole)
        width = max(NARROWEST, (last - first) * factor)
        if width >= whole[1] - whole[0]:
            return replace(self, window=None)
        place = self.cursor if self.cursor is not None else min(max(newest, first), last)
        share = (place - first) / (last - first) if last > first else 1.0
        return replace(self, window=View((place - share * width, place + (1 - share) * width)).domain(whole))

    def panned(self, whole: Domain, share: float) -> View:
        """Moved by a share of what is shown."""
        if self.window is None:
            return self
        first, last = self.domain(whole)
        by = share * (last - first)
        return replace(self, window=View((first + by, last + by)).domain(whole))

    def following(self, before: float, newest: float) -> View:
        """Moved along with the newest step, where the one before was in sight."""
        if self.window is None or newest <= self.window[1] or before > self.window[1]:
            return self
        by = newest - self.window[1]
        return replace(self, window=(self.window[0] + by, self.window[1] + by))

    def moved(self, whole: Domain, newest: float, by: float) -> View:
        """With the cursor moved by so many steps; it begins at the newest step in sight, and the window goes along."""
        first, last = self.domain(whole)
        place = min(newest, last) if self.cursor is None else min(max(whole[0], self.cursor + by), max(newest, whole[0]))
        window = self.window
        if window is not None and not first <= place <= last:
            window = View((first + by, last + by)).domain(whole)
        return View(window, place)
