"""Where an attempt begins: at the newest checkpoint that verifies, with everything later set aside. No torch."""

from __future__ import annotations

from pathlib import Path

from tui_ft import hardware, units
from tui_ft.errors import TuiFtError
from tui_ft.hardware import MOVED_BYTES
from tui_ft.recipe import Plan
from tui_ft.runs import checkpoints, devices, endings, fingerprint
from tui_ft.runs.fingerprint import Difference
from tui_ft.runs.manifest import Manifest, read_manifest
from tui_ft.runs.store import Run
from tui_ft.worker.journal import Journal


def starting_point(run: Run, plan: Plan, journal: Journal) -> Path | None:
    """The checkpoint this attempt goes on from; None starts at step 0.

    Raises:
        TuiFtError: the checkpoint that was asked for is damaged, or the run would not go on as it was and nobody has accepted that.
    """
    notes = checkpoints.clean_up(run)
    checkpoint, damages = checkpoints.newest_valid(run, plan.from_step)
    if checkpoint is None and plan.from_step is not None:
        raise TuiFtError(
            damages[0] if damages else f"there is no checkpoint {plan.from_step}", "`tui-ft resume` without --from takes the newest whole one."
        )
    manifest = manifest_of(checkpoint)
    step = manifest.step if manifest else 0
    journal.begin(step, run.record().get("versions", {}))
    if manifest:
        tell_accepted(journal, fingerprint.require_same(run, fingerprint.differences(manifest, run.recipe(), plan), plan.accepted))
    for later in checkpoints.steps(run):
        if later > step:  # of the past that this attempt supersedes: a later resume must not fall back into it
            checkpoints.set_aside(run, later)
            notes.append(f"checkpoint {later} is set aside: the run goes on from step {step}")
    for note in [*damages, *notes]:
        journal.alert("checkpoint", "warning", note, "What is set aside lies in ckpt/quarantine.")
    _tell_of_memory(run, plan, journal)
    return checkpoint


def _tell_of_memory(run: Run, plan: Plan, journal: Journal) -> None:
    """Tell what was made smaller after an out-of-memory, and that less memory is free than the plan counted on."""
    if endings.REASON in plan.reasons:
        remedy = "The result is that of the same batch; for the speed of larger ones give the run more memory."
        journal.alert(endings.OUT_OF_MEMORY, "warning", plan.reasons[endings.REASON], remedy, "train.micro_batch")
    gpus = hardware.read().gpus if plan.gpu else ()
    if not plan.gpu or not gpus:
        return
    now, planned = gpus[0], plan.gpu.free_bytes  # the first: this process is shown the planned one alone
    if now.free_bytes < planned - MOVED_BYTES:
        cause = f"{units.size(now.free_bytes)} of the GPU are free now, and the plan counted on {units.size(planned)}"
        held = "; ".join(devices.holders(now)) or "Nobody is named who holds it"
        journal.alert("memory", "warning", cause, f"{held}. Should it run out, the micro-batch is halved by itself.", "hardware.gpus")


def manifest_of(checkpoint: Path | None) -> Manifest | None:
    """The manifest of a checkpoint that was verified; None where an attempt begins at step 0."""
    manifest = read_manifest(checkpoint) if checkpoint else None
    return manifest if isinstance(manifest, Manifest) else None


def tell_accepted(journal: Journal, differences: list[Difference]) -> None:
    for difference in differences:
        journal.alert("changed", "warning", f"{difference}, accepted by whoever resumed", "The result is another one than without a stop.")
