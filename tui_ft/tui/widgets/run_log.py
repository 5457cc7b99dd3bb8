"""The log of a run: its newest lines, all of them or those that hold a text or tell of trouble."""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Iterable, Sequence

from textual.widgets import Log

from tui_ft.tui import keys
from tui_ft.tui.widgets.narrowing import Narrowing

LINES = 2_000
"""Kept at most, the newest."""


class RunLog(Narrowing):
    """The lines and, while it is asked for, a field to search them by."""

    BINDINGS = keys.bindings("log")  # type: ignore[assignment]

    def __init__(self, id: str | None = None) -> None:
        self.log_lines = Log(max_lines=LINES, id="lines")
        super().__init__(self.log_lines, "only lines that hold …", id)
        self.needle = ""
        self.only_trouble = False
        self._kept: deque[str] = deque(maxlen=LINES)

    @property
    def told(self) -> str:
        """What is left out, in words; empty while all lines are shown."""
        parts = [f"“{self.needle}”"] if self.needle else []
        return ", ".join(["trouble only"] * self.only_trouble + parts)

    def add(self, lines: Sequence[str]) -> None:
        """Take in new lines, already harmless; whoever reads further up stays where he is."""
        self._kept.extend(lines)
        self._write([line for line in lines[-LINES:] if self._fits(line)])

    def narrow(self, text: str) -> None:
        self.needle = text.strip().lower()
        self._show_again()

    def toggle_trouble(self) -> None:
        """Between all lines and those that warn, fail, or come from a library."""
        self.only_trouble = not self.only_trouble
        self._show_again()

    def _fits(self, line: str) -> bool:
        return self.needle in line.lower() and (not self.only_trouble or is_trouble(line))

    def _show_again(self) -> None:
        self.log_lines.clear()
        self._write([line for line in self._kept if self._fits(line)])

    def _write(self, lines: Iterable[str]) -> None:
        log = self.log_lines
        follows = log.is_vertical_scroll_end or not log.has_focus
        log.write_lines(wrapped(list(lines), log.scrollable_content_region.width), scroll_end=False)
        if follows:
            self.call_after_refresh(log.scroll_end, animate=False)


def is_trouble(line: str) -> bool:
    """Whether a line warns, tells of a failure, or is a library's own output."""
    return line[9:11] == "! " or line.startswith("  │") or "→ failed" in line


def wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Long lines broken to `width` cells, what follows indented below the words."""
    if width < 30:
        return list(lines)
    return [part for line in lines for part in (textwrap.wrap(line, width, subsequent_indent=" " * 9) if len(line) > width else [line])]
