"""Events: what a run tells, one JSON object a line, one file an attempt, one writer a file."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tui_ft.runs.store import Run, iterate_lines

VERSION = 1
SYNC_SECONDS = 5.0
DURABLE = {"attempt_started", "plan", "checkpoint", "command", "alert", "state", "attempt_ended"}
"""Events on which somebody relies after a crash: on disk before the writer goes on."""

EVERY_STEP_UNTIL = 100_000
BLOCK = 1 << 16

Event = dict[str, Any]


class EventWriter:
    """Appends to the events of one attempt. Each line is one `write()`, so a reader never sees two mixed."""

    def __init__(self, run: Run, attempt: int) -> None:
        self.file = run.events / f"{attempt}.jsonl"
        self._handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._synced = time.monotonic()
        self._torn_at: int | None = None
        self.seq = self._mend()

    def _mend(self) -> int:
        """Cut off what a killed writer left of its last line, else the next one would be lost with it; the number of the next event."""
        block, newest = b"", b""
        end = os.fstat(self._handle).st_size
        while end and newest.count(b"\n") < 2:
            start = max(0, end - BLOCK)
            block = os.pread(self._handle, end - start, start)
            newest, end = block + newest, start
        whole, newline, torn = newest.rpartition(b"\n")
        if torn:
            os.ftruncate(self._handle, os.fstat(self._handle).st_size - len(torn))
        last = _parse(whole.rpartition(b"\n")[2]) if newline else None
        return int(last.get("seq", 0)) + 1 if last else 0

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
        self._untear()
        start = os.fstat(self._handle).st_size
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError(errno.ENOSPC, "No space left on device")
            if kind in DURABLE or time.monotonic() - self._synced > SYNC_SECONDS:
                self.sync()
        except OSError:
            self._torn_at = start
            with suppress(OSError):
                self._untear()
            raise
        self.seq += 1
        return event

    def _untear(self) -> None:
        """Take back a line that did not get onto the disk whole."""
        if self._torn_at is not None:
            os.ftruncate(self._handle, self._torn_at)
            self._torn_at = None

    def sync(self) -> None:
        os.fsync(self._handle)
        self._synced = time.monotonic()

    def close(self) -> None:
        os.close(self._handle)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class EventReader:
    """Follows the events of a run over all its attempts; each `poll()` gives what is new since the last one.

    Args:
        only: the kinds of events that are asked for; lines of others are not even parsed, which is a hundred times cheaper.
        about: a text that each line must hold, e.g. the id of a command.
    """

    def __init__(self, run: Run, only: Collection[str] = (), about: str = "") -> None:
        self.run = run
        self._only = frozenset(only)
        self._marks = [f'"type": "{kind}"'.encode() for kind in only]
        self._about = about.encode()
        self._offsets: dict[Path, int] = {}

    def poll(self, limit: int = 1_000_000) -> list[Event]:
        """New events in order, each with its `attempt` added; at most `limit` of them."""
        events: list[Event] = []
        for event in self.stream():
            events.append(event)
            if len(events) >= limit:
                break
        return events

    def stream(self) -> Iterator[Event]:
        """The same one by one: a run of a million steps has too many to be held at once."""
        for attempt, file in self._files():
            try:
                for line, offset in iterate_lines(file, self._offsets.get(file, 0)):
                    self._offsets[file] = offset
                    event = _parse(line) if self._is_wanted(line) else None
                    if event and (not self._only or event["type"] in self._only):
                        yield {**event, "attempt": attempt}
            except OSError:
                continue  # deleted between listing and opening

    def _is_wanted(self, line: bytes) -> bool:
        """A look at the bytes; what a text in the line says of a type has its quotes escaped."""
        return (not self._marks or any(mark in line for mark in self._marks)) and self._about in line

    def _files(self) -> list[tuple[int, Path]]:
        files = [(int(file.stem), file) for file in self.run.events.glob("*.jsonl") if file.stem.isdigit()]
        return sorted(files)


def interval(step: int) -> int:
    """Steps from one that is written to the next: each one up to 100 000, then ever fewer, so that a million steps stay below 60 MB."""
    every = 1
    while step > EVERY_STEP_UNTIL * every:
        every *= 10
    return every


def is_kept(step: int) -> bool:
    """Whether the measurements of a step are written."""
    return step % interval(step) == 0


def _parse(line: bytes) -> Event | None:
    """The event in a line; None where the line is damaged, which loses that line alone."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None
