"""What home shows of all runs, kept up to date at the price of a few `stat` calls a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tui_ft.runs import store
from tui_ft.runs.glimpse import loss_glimpse
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary, summarize

Stamp = tuple[int, ...]


@dataclass
class Row:
    """One run as it was last read."""

    run: Run
    summary: Summary
    stamp: Stamp
    points: list[tuple[float, float]] = field(default_factory=list)
    """Its loss at a few places."""

    @property
    def is_live(self) -> bool:
        return self.summary.is_live


def _loss(row: Row) -> float:
    loss = row.summary.last_loss
    return loss if loss is not None and math.isfinite(loss) else math.inf


ORDERS: dict[str, Callable[[Row], Any] | None] = {
    "newest": None,
    "name": lambda row: row.run.id,
    "state": lambda row: (not row.is_live, row.summary.state),
    "loss": _loss,
}
"""The ways in which runs can be sorted; None: as they come."""


class RunTable:
    """All runs, newest first. A run is read again when one of its small files changed, or when it may have died."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def refresh(self) -> set[str]:
        """Look again; the ids of the runs that changed, came or went."""
        before, self.rows = self.rows, {}
        changed = set()
        for run in store.all_runs():
            row = before.get(run.id)
            stamp = _stamp(run)
            if row is None or row.stamp != stamp or row.is_live:
                fresh = _read(run, stamp, row)
                if row is None or fresh.summary != row.summary:
                    changed.add(run.id)
                row = fresh
            self.rows[run.id] = row
        return changed | (before.keys() - self.rows.keys())

    def matching(self, needle: str, order: str = "newest") -> list[Row]:
        """The rows whose id or state holds `needle`, in one of `ORDERS`; among equals the newest comes first."""
        wanted = needle.strip().lower()
        rows = [row for row in self.rows.values() if wanted in row.run.id.lower() or wanted in row.summary.state]
        key = ORDERS[order]
        return sorted(rows, key=key) if key else rows


def _read(run: Run, stamp: Stamp, before: Row | None) -> Row:
    summary = summarize(run)
    if before is not None and before.summary.step == summary.step:
        return Row(run, summary, stamp, before.points)
    return Row(run, summary, stamp, loss_glimpse(run))


def _stamp(run: Run) -> Stamp:
    """Changes whenever worker, supervisor or a resuming terminal wrote something that a summary tells."""
    found = []
    for path in (run.status_file, run.owner_file, run.path / "exit", run.path / "plan", run.checkpoints):
        try:
            found.append(path.stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)
