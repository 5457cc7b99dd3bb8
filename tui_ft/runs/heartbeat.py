"""The sign of life of a supervisor, for readers on another machine of a shared home.

A process can only be looked up where it runs, and the clocks of two machines never agree. So the supervisor counts in a
file, and a reader looks whether the count moves, by its own clock alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tui_ft.runs.store import Run

BEAT_SECONDS = 5.0
STILL_SECONDS = 20.0
"""A count that has stood still so long, four beats, belongs to nobody."""
LOOK_SECONDS = 0.5


class Heart:
    """The supervisor's side: `beat` is called often and counts now and then."""

    def __init__(self, run: Run) -> None:
        self._file = run.path / "heartbeat"
        self._count = _read(self._file) or 0
        self._next = 0.0

    def beat(self) -> None:
        """Count, if it is time. A disk that refuses costs this beat, not the run.

        Opened and closed each time: only a close makes NFS hand the content on. No fsync: after a crash there is nothing to tell.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BEAT_SECONDS
        self._count += 1
        with suppress(OSError):
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(handle, b"%020d\n" % self._count)
            finally:
                os.close(handle)


@dataclass
class Pulse:
    """What this process has seen of one count."""

    count: int | None
    since: float
    """This process's monotonic clock when it first saw the count as it is."""
    moved: bool = False
    """It has seen the count change: there is life, or was at that time."""

    @property
    def still_seconds(self) -> float:
        return time.monotonic() - self.since


_seen: dict[Path, Pulse] = {}


def observe(run: Run) -> Pulse:
    """Look at the count once more. The first look proves nothing: only who looks for `STILL_SECONDS` can tell dead from slow."""
    count, before = _read(run.path / "heartbeat"), _seen.get(run.path)
    if before is None or before.count != count:
        _seen[run.path] = Pulse(count, time.monotonic(), moved=before is not None)
    return _seen[run.path]


def is_still(run: Run, on_wait: Callable[[float], None] = lambda _: None) -> bool:
    """Watch the count until it moves, or has stood still for `STILL_SECONDS`.

    Args:
        on_wait: is given the seconds still to wait, at every look.
    """
    began = observe(run)
    while (pulse := observe(run)) is began:
        left = STILL_SECONDS - pulse.still_seconds
        if left <= 0:
            return True
        on_wait(left)
        time.sleep(LOOK_SECONDS)
    return False


def _read(file: Path) -> int | None:
    try:
        return int(file.read_bytes())
    except (OSError, ValueError):
        return None
