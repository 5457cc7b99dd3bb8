"""`python -m tui_ft.results.report RUN_FOLDER`: the run's report, drawn from its events when it ends."""

from __future__ import annotations

import sys
from pathlib import Path

from tui_ft import home
from tui_ft.results import loss_picture
from tui_ft.runs.curves import Curves
from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize


def write_report(run: Run) -> Path:
    """`report/loss.png` and `report/summary.json`; the folder."""
    curves = Curves()
    curves.add(EventReader(run).stream())
    if curves.steps:
        loss_picture.write(curves, run.report / "loss.png", run.id)
    home.write_atomically(run.report / "summary.json", summarize(run).model_dump_json(indent=1))
    return run.report


if __name__ == "__main__":
    write_report(Run(Path(sys.argv[1])))
