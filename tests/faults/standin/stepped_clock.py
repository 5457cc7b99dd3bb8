"""A wall clock that somebody steps: the seconds in the file that TUI_FT_CLOCK names are added to what this process is told."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path


def step_by_file() -> None:
    """From now on in this process."""
    file = Path(os.environ["TUI_FT_CLOCK"])
    real_time, real_ns, real_datetime = time.time, time.time_ns, datetime.datetime

    def offset() -> float:
        try:
            return float(file.read_text())
        except (OSError, ValueError):
            return 0.0

    class Datetime(real_datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return real_datetime.now(tz) + datetime.timedelta(seconds=offset())

    time.time = lambda: real_time() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)
    datetime.datetime = Datetime  # type: ignore[misc]
