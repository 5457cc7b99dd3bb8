"""What is being found out, as all screens of the wizard see it: the value, how far it is, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tui_ft.pace import Pace
from tui_ft.text import one_line

T = TypeVar("T")
_STAGES = {
    "read": ("reading", "rows"),
    "languages": ("telling languages", "texts"),
    "tokenize": ("tokenizing", "samples"),
    "write": ("writing", "samples"),
}


@dataclass
class Work:
    """What a child is doing now, as it tells."""

    stage: str = ""
    pace: Pace = field(default_factory=Pace)

    def report(self, stage: str, done: int, total: int | None) -> None:
        if stage != self.stage:
            self.stage, self.pace = stage, Pace()
        self.pace.update(done, total)

    def text(self) -> str:
        """`tokenizing 45 % · 8.1k samples/s · 2 min left`; empty before the first word."""
        doing, unit = _STAGES.get(self.stage, (one_line(self.stage, 30), ""))
        return f"{doing} {self.pace.text(unit)}" if doing else ""


@dataclass
class Finding(Generic[T]):
    """Something that is looked up: the newest value, whether a newer one is on its way, or why there is none."""

    value: T | None = None
    busy: bool = False
    error: str = ""
    hint: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """What came with the error: the choices there are, the columns seen. Foreign text."""
    key: str = ""
    """What it was asked for, so that the same is not asked twice."""
    stopped: bool = False
    """The person ended it: it is not asked for again by itself."""
    work: Work = field(default_factory=Work)

    def expect(self, key: str) -> None:
        """From now on it is on its way, for all who look."""
        self.busy, self.key, self.stopped, self.work = True, key, False, Work()

    def stop(self) -> None:
        self.busy, self.stopped = False, True
