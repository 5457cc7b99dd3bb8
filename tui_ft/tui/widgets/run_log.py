"""The log of a run: its newest lines, all of them or those that hold a text or tell of trouble."""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Iterable, Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Log

from tui_ft.tui import keys

LINES = 2_000
"""Kept at most, the newest."""


class RunLog(Vertical):
    """The lines and, while it is asked for, a field to search them by."""

    BINDINGS = keys.bindings("log")  # type: ignore[assignment]
    DEFAULT_CSS = """
    RunLog { height: 1fr; }
    RunLog Input { height: 1; background: $panel; display: none; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.needle = ""
        self.only_trouble = False
        self._kept: deque[str] = deque(maxlen=LINES)

    def compose(self) -> ComposeResult:
        yield Input(placeholder="only lines that hold …", id="log-search", compact=True)
        yield Log(max_lines=LINES, id="lines")

    @property
    def log_lines(self) -> Log:
        return self.query_one("#lines", Log)

    @property
    def told(self) -> str:
        """What is left out, in words; empty while all lines are shown."""
        parts = [f"“{self.needle}”"] if self.needle else []
        return ", ".join(["trouble only"] * self.only_trouble + parts)

    def add(self, lines: Sequence[str]) -> None:
        """Take in new lines, already harmless; whoever reads further up stays where he is."""
        self._kept.extend(lines)
        self._write([line for line in lines[-LINES:] if self._fits(line)])

    def ask(self) -> None:
        """Open the field to search by."""
        field = self.query_one("#log-search", Input)
        field.display = True
        field.focus()

    def search(self, needle: str) -> None:
        """Only the lines that hold a text, in whatever case; all of them for an empty one."""
        self.needle = needle.strip().lower()
        self._show_again()

    def toggle_trouble(self) -> None:
        """Between all lines and those that warn, fail, or come from a library."""
        self.only_trouble = not self.only_trouble
        self._show_again()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape is the screen's while all lines are shown."""
        return action != "all_lines" or bool(self.needle or self.query_one("#log-search", Input).display)

    def action_all_lines(self) -> None:
        field = self.query_one("#log-search", Input)
        field.value, field.display = "", False
        self.search("")
        self.log_lines.focus()

    @on(Input.Changed, "#log-search")
    def _narrow(self, event: Input.Changed) -> None:
        event.stop()
        self.search(event.value)

    @on(Input.Submitted, "#log-search")
    def _searched(self, event: Input.Submitted) -> None:
        event.stop()
        self.log_lines.focus()

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
