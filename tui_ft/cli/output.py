"""How commands print: JSON for programs, aligned lines for people. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from tui_ft import units
from tui_ft.errors import RequestError
from tui_ft.runs.summary import Summary
from tui_ft.text import one_line, visible

LINE_SECONDS = 10.0
"""Without a terminal a line of progress is printed this often, so that a log stays readable."""


def print_json(value: Any) -> None:
    """One JSON value. Foreign text stays as it is: JSON escapes control characters."""
    print(json.dumps(_plain(value), ensure_ascii=True, indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def say(text: str = "") -> None:
    """A line for a person, on stdout."""
    print(visible(text))


def note(text: str) -> None:
    """A remark beside the result, on stderr."""
    print(visible(text), file=sys.stderr, flush=True)


def table(rows: Iterable[Sequence[object]], head: Sequence[str]) -> None:
    """Columns as wide as their content; the last one is not padded."""
    lines = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)) + "  " + line[-1])


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def steps(summary: Summary) -> str:
    return f"{summary.step}/{summary.total_steps or '?'}"


def one_run(summary: Summary) -> str:
    """A run on one line: for status bars, and for following it."""
    parts = [summary.run, summary.state]
    if summary.state == "starting" and summary.stage:
        parts.append(f"{summary.stage} {summary.stage_pace}".rstrip())
    if summary.queue_position:
        parts.append(summary.reason)
    if summary.step:
        parts.append(f"step {steps(summary)}")
        parts.append(f"loss {number(summary.last_loss)}")
    if summary.tokens_per_second and summary.state == "running":
        parts.append(f"{summary.tokens_per_second:,.0f} tokens/s")
    if summary.eta_seconds is not None:
        parts.append(f"{units.duration(summary.eta_seconds)} left")
    return " · ".join(parts)


def may_delete(what: str, with_it: str, size: str) -> bool:
    """Ask on the terminal whether `what` shall be deleted, and say so when it shall not.

    Args:
        with_it: what goes along, as it continues the sentence; empty for nothing.
        size: what is free again, for a person.

    Raises:
        RequestError: nobody can be asked.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise RequestError(f"deleting {what} needs --yes where nobody can be asked", f"It would free {size}.")
    if input(f"Delete {what}{with_it} ({size})? [y/N] ").strip().lower() in ("y", "yes"):
        return True
    say("Nothing was deleted.")
    return False


class ProgressLine:
    """The progress line: rewritten in place on a terminal, now and then a new one elsewhere."""

    def __init__(self) -> None:
        self.in_place = sys.stderr.isatty()
        self.shown = ""
        self.printed = -LINE_SECONDS

    def show(self, text: str) -> None:
        if self.in_place and text != self.shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif not self.in_place and text != self.shown and time.monotonic() - self.printed >= LINE_SECONDS:
            note(text)
            self.printed = time.monotonic()
        else:
            return
        self.shown = text

    def say(self, text: str) -> None:
        self.clear()
        note(text)

    def clear(self) -> None:
        if self.in_place and self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self.shown = ""


class Frame:
    """Lines that are written anew in place on a terminal, cut to its width, and one after the other elsewhere."""

    def __init__(self) -> None:
        self.in_place = sys.stdout.isatty()
        self.height = 0
        """Lines that stand there now."""

    def show(self, lines: Sequence[str]) -> None:
        if not self.in_place:
            say("\n".join(lines))
            return
        size = shutil.get_terminal_size()
        shown = [one_line(line, size.columns - 1) for line in lines[: size.lines - 1]]
        up = f"\x1b[{self.height}A" if self.height else ""
        print(f"{up}\r\x1b[J" + "\n".join(shown), flush=True)
        self.height = len(shown)
