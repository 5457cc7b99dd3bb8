"""What the worker tells: events to their file, the fold of them to `status.json`, a line a step to its log."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from tui_ft.runs.events import DURABLE, EventReader, EventWriter
from tui_ft.runs.progress import Progress, kept_events
from tui_ft.runs.store import Run

STATUS_SECONDS = 1.0
"""How often the status is written at most: it is read by people, and each write is an fsync."""
MOST_UNWRITTEN = 1000


class Journal:
    """One attempt's events. A full disk costs measurements, never the training."""

    def __init__(self, run: Run, attempt: int, log_every: int) -> None:
        self.run = run
        self.attempt = attempt
        self.log_every = log_every
        self.history = EventReader(run).poll()
        """The events of earlier attempts, as they were when this one began."""
        self.progress = Progress()
        self._writer = EventWriter(run, attempt)
        self._status_written = 0.0
        self._lost = 0
        self._unwritten: list[tuple[str, dict[str, Any]]] = []
        """Events on which somebody relies, waiting for room on a full disk."""

    def begin(self, from_step: int, versions: dict[str, str]) -> None:
        """Open the attempt: later steps of earlier attempts are superseded from here on."""
        self.history = kept_events(self.history, from_step)
        for event in self.history:
            self.progress.apply(event)
        self.tell("attempt_started", attempt=self.attempt, from_step=from_step, versions=versions)

    def tell(self, kind: str, /, **fields: Any) -> None:
        """Write one event and fold it into the status."""
        self._unwritten.append((kind, fields))
        event = {"type": kind, "mono": time.monotonic(), **fields}
        try:
            while self._unwritten:
                event = self._writer.write(self._unwritten[0][0], **self._unwritten[0][1])
                del self._unwritten[0]
        except OSError:
            kept = [waiting for waiting in self._unwritten if waiting[0] in DURABLE][-MOST_UNWRITTEN:]
            self._lost += len(self._unwritten) - len(kept)
            self._unwritten = kept
        self.progress.apply({**event, "attempt": self.attempt})
        if kind in DURABLE or time.monotonic() - self._status_written > STATUS_SECONDS:
            self.write_status()
        self._print(kind, fields)

    def write_status(self) -> None:
        self._status_written = time.monotonic()
        with suppress(OSError):  # a full disk: the next one may fit again
            self.progress.write(self.run)

    def stage(self, stage: str, done: int = 0, total: int | None = None) -> None:
        """Tell what is done before the first step."""
        self.tell("progress", stage=stage, done=done, total=total)

    def alert(self, kind: str, severity: str, cause: str, remedy: str) -> None:
        self.tell("alert", kind=kind, severity=severity, cause=cause, remedy=remedy)

    def state(self, state: str, reason: str = "") -> None:
        if state != self.progress.state or reason != self.progress.reason:
            self.tell("state", **{"from": self.progress.state, "to": state, "reason": reason})

    def end(self, outcome: str, reason: str) -> None:
        """The last words. Only the supervisor can record the end of a worker that does not come to them."""
        self.progress.ended = True  # before the state is told, so that nobody takes it for the whole run's: the supervisor has the last word
        shown = "failed" if outcome == "out-of-memory" else outcome
        self.state(shown, reason)
        self.tell("attempt_ended", outcome=outcome, reason=reason, events_lost=self._lost)
        self.write_status()
        self._writer.close()

    def _print(self, kind: str, fields: dict[str, Any]) -> None:
        """The log a person reads with `tui-ft logs`: every n-th step, and everything that is not a measurement."""
        if kind == "progress" or (kind == "step" and fields["step"] % self.log_every):
            return
        shown = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in fields.items() if value is not None}
        print(time.strftime("%H:%M:%S"), kind, *(f"{key}={value}" for key, value in shown.items()), flush=True)
