"""Where an attempt begins: at the newest checkpoint that verifies, with everything later set aside. No torch."""

from __future__ import annotations

from pathlib import Path

from tui_ft.errors import TuiFtError
from tui_ft.recipe import Plan
from tui_ft.runs import checkpoints
from tui_ft.runs.store import Run, read_json
from tui_ft.worker.journal import Journal


def starting_point(run: Run, plan: Plan, journal: Journal) -> Path | None:
    """The checkpoint this attempt goes on from; None starts at step 0.

    Raises:
        TuiFtError: the checkpoint that was asked for is damaged.
    """
    checkpoint, notes = checkpoints.newest_valid(run, plan.from_step)
    if checkpoint is None and plan.from_step is not None:
        raise TuiFtError(
            notes[0] if notes else f"there is no checkpoint {plan.from_step}", "`tui-ft resume` without --from takes the newest whole one."
        )
    step = int(read_json(checkpoint / checkpoints.MANIFEST)["step"]) if checkpoint else 0
    for later in checkpoints.steps(run):
        if later > step:  # of the past that this attempt supersedes: a later resume must not fall back into it
            checkpoints.set_aside(run, later)
            notes.append(f"checkpoint {later} is set aside: the run goes on from step {step}")
    journal.begin(step, run.record().get("versions", {}))
    for note in notes:
        journal.alert("checkpoint", "warning", note, "It is kept in ckpt/quarantine.")
    return checkpoint
