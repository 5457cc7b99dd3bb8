"""What is new about one run since the last look: events, lines for the log, its state. No widget in here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from tui_ft import text
from tui_ft.errors import TuiFtError
from tui_ft.runs import checkpoints
from tui_ft.runs.curves import Curves
from tui_ft.runs.events import Event, EventReader
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary, summarize
from tui_ft.tui.widgets.telling import told

BATCH = 4_000
"""Events taken in at once: some 50 ms, so that a run of 100 000 steps never blocks a key."""
ANSWERS = 1_000
"""Commands whose fate is remembered, the newest."""
TAIL = 16_000
"""Bytes of a worker's error output shown at first."""


_BAR = re.compile(r"\d%\|.{1,80}\| \d")
"""A library's own progress bar: what it counts is told by the events."""


@dataclass
class News:
    """One look."""

    summary: Summary
    lines: list[str] = field(default_factory=list)
    """For the log, already made harmless."""
    events: int = 0
    more: bool = False
    """There is more on disk than one look takes in."""


class Feed:
    """Follows one run. `curves` holds all that its events have told so far."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.curves = Curves()
        self.answers: dict[str, Event] = {}
        """The newest word of the worker on each command, by the command's id."""
        self._reader = EventReader(run)
        self._shelf = checkpoints.Listing(run)
        self._errors: dict[int, int] = {}
        try:
            self.every = run.recipe().log.every
        except TuiFtError:
            self.every = 10

    def look(self) -> News:
        """Read what is new, at most a batch of it."""
        events = self._reader.poll(BATCH)
        self.curves.add(events)
        lines = []
        for event in events:
            if event["type"] == "command":
                self.answers[str(event.get("id"))] = event
                if len(self.answers) > ANSWERS:
                    del self.answers[next(iter(self.answers))]
            if event["type"] != "step" or not event.get("step", 0) % self.every:
                line = told(event)
                if line:
                    lines.append(line)
        more = len(events) >= BATCH
        if not more:
            lines += self._error_output()
        return News(summarize(self.run, self._shelf), lines, len(events), more)

    def _error_output(self) -> list[str]:
        """New whole lines of the newest attempt's error output: warnings of libraries, a traceback."""
        attempt = self.run.attempt()
        try:
            with (self.run.logs / f"{attempt}.err").open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                start = self._errors.get(attempt, max(0, end - TAIL))
                start = start if start <= end else 0  # it was begun anew, having grown too long
                file.seek(start)
                block = file.read(TAIL)
        except OSError:
            return []
        whole, newline, _ = block.rpartition(b"\n")
        if not newline:
            return []
        self._errors[attempt] = start + len(whole) + 1
        rows = [row.rstrip().rpartition("\r")[2] for row in whole.decode(errors="replace").split("\n")]
        return [f"  │ {text.one_line(row)}" for row in rows if row.strip() and not _BAR.search(row)]
