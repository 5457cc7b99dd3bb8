"""Room on the run's disk: whether an error means that there is none, how much the next checkpoint takes, and how that is said."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from tui_ft import hardware, units
from tui_ft.runs import checkpoints
from tui_ft.runs.store import Run
from tui_ft.text import one_line

FULL = {errno.ENOSPC, errno.EDQUOT}
WORDS = ("no space left", "disk quota exceeded", "enospc")
ALWAYS_FREE = 32 << 20
"""Less free than this, and a write of weights that failed without saying why has failed for want of room."""


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk or quota is behind an error: libraries wrap it in errors of their own, with its words at best."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return False
        if (isinstance(seen, OSError) and seen.errno in FULL) or any(word in str(seen).lower() for word in WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@dataclass
class Room:
    """What the next checkpoint of a run takes, against what is free."""

    run: Run
    learned: int = 0
    """Bytes that were free when a save failed: it takes more."""

    def missing(self) -> int:
        """Bytes that must become free before a save is worth a try; 0 where there is room, or nothing to judge by."""
        missing = checkpoints.room_for_checkpoint(self.run) or 0
        return max(missing, self.learned - self._free() if self.learned else 0, 0)

    def has_failed(self, error: BaseException | str) -> bool:
        """Take in that a save failed, its leftovers removed; whether for want of room."""
        full = is_disk_full(error) if isinstance(error, BaseException) else any(word in error.lower() for word in WORDS)
        if full or self._free() < ALWAYS_FREE or checkpoints.room_for_checkpoint(self.run):
            self.learned = max(self.learned, self._free() + (self._free() >> 2) + 1)
            return True
        return False

    def words(self) -> str:
        free = self._free()
        return f"the disk is full: {units.size(free + self.missing())} needed, {units.size(free)} free at {one_line(self.run.checkpoints, 200)}"

    def _free(self) -> int:
        free = hardware.free_disk(self.run.checkpoints)
        return 1 << 62 if free is None else free
