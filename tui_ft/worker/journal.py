"""What the worker tells: events to their file, the fold of them to `status.json`, a line a step to its log."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from tui_ft.runs.events import DURABLE, EventWriter, interval, is_kept
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run
from tui_ft.worker.history import History
from tui_ft.worker.measuring import Measured

STATUS_SECONDS = 1.0
"""How often the status is written at most: it is read by people, and each write is an fsync."""
MOST_UNWRITTEN = 1000
RESERVE_BYTES = 1 << 16
"""Kept back on the disk, and given up when it is full: room to say so, and to acknowledge commands."""
LAST_WORDS_SECONDS = 10.0


class Journal:
    """One attempt's events. A full disk costs measurements, never the training.

    Args:
        log_every: steps between two lines of the log.
        restarted: the supervisor began this attempt by itself, after the one before was killed.
    """

    def __init__(self, run: Run, attempt: int, log_every: int, restarted: bool = False) -> None:
        self.run = run
        self.attempt = attempt
        self.log_every = log_every
        self.restarted = restarted
        self.past = History.read(run)
        self.cause = ""
        """Why the attempt ends, in one word, where whoever ends it knows better than its outcome says."""
        self.progress = Progress()
        self.measured = Measured(run, attempt)
        self._writer = EventWriter(run, attempt)
        self._status_written = 0.0
        self._status_is_old = False
        self._lost = 0
        self._held: dict[str, Any] | None = None
        """The newest step, where it is one of those that are not written."""
        self._unwritten: list[tuple[str, dict[str, Any]]] = []
        """Events on which somebody relies, waiting for room on a full disk."""
        self._reserve = run.path / "reserve"
        self._keep_reserve()
        if restarted:
            self.tell("state", **{"from": "starting", "to": "starting", "reason": "", "restart": True})

    def begin(self, from_step: int, versions: dict[str, str]) -> None:
        """Open the attempt: later steps of earlier attempts are superseded from here on."""
        self.progress = self.past.measure(self.run, from_step)
        self.tell("attempt_started", attempt=self.attempt, from_step=from_step, versions=versions)

    def tell(self, kind: str, /, **fields: Any) -> None:
        """Write one event and fold it into the status. Far into a long run most steps are only folded."""
        event = {"type": kind, "mono": time.monotonic(), **fields}
        if kind == "step" and not is_kept(fields["step"]):
            self._held = fields
        else:
            if self._held and kind != "step":
                self._unwritten.append(("step", self._held))  # else a resume from here would not know the tokens that were seen
            self._held = None
            self._unwritten.append((kind, fields))
            event = self._write() or event
        self.progress.apply({**event, "attempt": self.attempt})
        if kind in DURABLE or time.monotonic() - self._status_written > STATUS_SECONDS:
            self.write_status()
        self._print(kind, fields)

    def flush(self) -> bool:
        """Try again to write what a full disk refused; whether nothing waits any more."""
        if self._unwritten:
            self._write()
        if self._status_is_old:
            self.write_status()
        if not self._unwritten and not self._reserve.exists():
            self._keep_reserve()
        return not (self._unwritten or self._status_is_old)

    @property
    def is_on_disk(self) -> bool:
        """Whether all that was told is written."""
        return not self._unwritten

    def _write(self) -> dict[str, Any] | None:
        """Write what waits, oldest first; the newest event as it was written, None where it was not."""
        event = None
        while self._unwritten:
            try:
                event = self._writer.write(self._unwritten[0][0], **self._unwritten[0][1])
            except OSError:
                if self._give_up_reserve():
                    continue
                kept = [waiting for waiting in self._unwritten if waiting[0] in DURABLE][-MOST_UNWRITTEN:]
                self._lost += len(self._unwritten) - len(kept)
                self._unwritten = kept
                return None
            del self._unwritten[0]
        return event

    def _keep_reserve(self) -> None:
        with suppress(OSError):
            handle = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(handle, os.urandom(RESERVE_BYTES))  # zeros would take no room on a file system that compresses
            finally:
                os.close(handle)

    def _give_up_reserve(self) -> bool:
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def write_status(self) -> None:
        self._status_written = time.monotonic()
        while True:
            try:
                self.progress.write(self.run)
            except OSError:
                self._status_is_old = True  # a full disk: the next one may fit again
                if self._give_up_reserve():
                    continue
                return
            self._status_is_old = False
            return

    def stage(self, stage: str, done: int = 0, total: int | None = None) -> None:
        """Tell what is done before the first step."""
        self.tell("progress", stage=stage, done=done, total=total)

    def alert(self, kind: str, severity: str, cause: str, remedy: str, key: str = "", cleared: bool = False) -> None:
        """Tell what is wrong, why, and what helps; with `cleared`, that it is over.

        Args:
            key: the recipe key that the remedy is about.
        """
        more: dict[str, Any] = ({"key": key} if key else {}) | ({"cleared": True} if cleared else {})
        self.tell("alert", kind=kind, severity=severity, cause=cause, remedy=remedy, **more)

    def state(self, state: str, reason: str = "") -> None:
        if state != self.progress.state or reason != self.progress.reason:
            self.tell("state", **{"from": self.progress.state, "to": state, "reason": reason})

    def end(self, outcome: str, reason: str, cause: str = "") -> None:
        """The last words. Only the supervisor can record the end of a worker that does not come to them."""
        self.progress.ended = True  # before the state is told, so that nobody takes it for the whole run's: the supervisor has the last word
        shown = "failed" if outcome == "out-of-memory" else outcome
        self.state(shown, reason)
        self.tell("attempt_ended", outcome=outcome, reason=reason, cause=cause, events_lost=self._lost)
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while not self.flush() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.write_status()
        self._writer.close()
        self._give_up_reserve()

    def _print(self, kind: str, fields: dict[str, Any]) -> None:
        """The log a person reads with `tui-ft logs`: every n-th step (far into a long run ever fewer), and everything that is not a measurement."""
        if kind == "progress" or (kind == "step" and fields["step"] % (self.log_every * interval(fields["step"]))):
            return
        shown = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in fields.items() if value is not None}
        print(time.strftime("%H:%M:%S"), kind, *(f"{key}={value}" for key, value in shown.items()), flush=True)
