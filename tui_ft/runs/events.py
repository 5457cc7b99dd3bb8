"""Events: what a run tells, one JSON object a line, one file an attempt, one writer a file."""

from __future__ import annotations

import json
import math
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tui_ft.runs.store import Run, iterate_lines

VERSION = 1
SYNC_SECONDS = 5.0
DURABLE = {"attempt_started", "plan", "checkpoint", "command", "alert", "state", "attempt_ended"}
"""Events on which somebody relies after a crash: on disk before the writer goes on."""

Event = dict[str, Any]


class EventWriter:
    """Appends to the events of one attempt. Each line is one `write()`, so a reader never sees two mixed."""

    def __init__(self, run: Run, attempt: int) -> None:
        self.file = run.events / f"{attempt}.jsonl"
        self._handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._synced = time.monotonic()
        self.seq = 0

    def write(self, kind: str, /, **fields: Any) -> Event:
        """Append one event. Numbers that JSON cannot hold become null.

        Raises:
            OSError: the disk is full or gone; nothing of the line stays.
        """
        event: Event = {
            "v": VERSION,
            "seq": self.seq,
            "t": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "mono": round(time.monotonic(), 3),
            "type": kind,
            **fields,
        }
        line = json.dumps({key: _finite(value) for key, value in event.items()}, ensure_ascii=False).encode() + b"\n"
        start = os.fstat(self._handle).st_size
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError(28, "No space left on device")
        except OSError:
            os.ftruncate(self._handle, start)
            raise
        self.seq += 1
        if kind in DURABLE or time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()
        return event

    def sync(self) -> None:
        os.fsync(self._handle)
        self._synced = time.monotonic()

    def close(self) -> None:
        os.close(self._handle)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class EventReader:
    """Follows the events of a run over all its attempts; each `poll()` gives what is new since the last one."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._offsets: dict[Path, int] = {}

    def poll(self, limit: int = 1_000_000) -> list[Event]:
        """New events in order, each with its `attempt` added; at most `limit` of them."""
        events: list[Event] = []
        for attempt, file in self._files():
            try:
                for line, offset in iterate_lines(file, self._offsets.get(file, 0)):
                    self._offsets[file] = offset
                    event = _parse(line)
                    if event:
                        events.append({**event, "attempt": attempt})
                    if len(events) >= limit:
                        return events
            except OSError:
                continue  # deleted between listing and opening
        return events

    def _files(self) -> list[tuple[int, Path]]:
        files = [(int(file.stem), file) for file in self.run.events.glob("*.jsonl") if file.stem.isdigit()]
        return sorted(files)


def _parse(line: bytes) -> Event | None:
    """The event in a line; None where the line is damaged, which loses that line alone."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None
