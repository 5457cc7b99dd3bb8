"""What the fault tests tell: one line a test, gathered into the table of docs/reliability.md by `make test-faults`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FULL = os.environ.get("TUI_FT_FAULTS") == "full"
RESULTS = "TUI_FT_FAULT_RESULTS"
"""Names the file that rows are appended to; unset, they are kept nowhere."""
SEED = int(os.environ.get("TUI_FT_FAULT_SEED", "20261124"))


def scaled(full: int, part: int) -> int:
    """How many cases: all of them in `make test-faults`, a part in `make test`."""
    return full if FULL else part


@dataclass
class Row:
    """One promise under one kind of fault. Tests of the same promise and fault are added up."""

    promise: str = ""
    fault: str = ""
    cases: int = 0
    """How often the fault was made."""
    note: str = ""
    """What was counted besides, or why it did not run."""
    passed: bool = False
    skipped: bool = False
    seconds: float = 0.0

    def write(self) -> None:
        place = os.environ.get(RESULTS)
        if place and self.promise:
            with Path(place).open("a", encoding="utf-8") as file:  # one short write a line: both test processes append here
                file.write(json.dumps(asdict(self)) + "\n")
