"""The checkpoints of a run as lines, and one of them as a file to copy away."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from textual.content import Content

from tui_ft import units
from tui_ft.errors import TuiFtError
from tui_ft.runs import checkpoints as shelf
from tui_ft.runs import control
from tui_ft.runs.checkpoints import CheckpointInfo
from tui_ft.runs.store import Run
from tui_ft.tui.widgets.options import Orders


def archive_of(checkpoint: CheckpointInfo) -> Path:
    """Where the ZIP of a checkpoint stands: beside its folder."""
    return Path(checkpoint.path + ".zip")


def lines(checkpoints: list[CheckpointInfo]) -> list[tuple[str, Content]]:
    """(id, line) of each, the newest first; the best by validation loss is named."""
    found = []
    for checkpoint in reversed(checkpoints):
        loss = f"validation {checkpoint.eval_loss:.4f}" if checkpoint.eval_loss is not None else "not evaluated"
        found.append(
            (
                str(checkpoint.step),
                Content.assemble(
                    (f"step {checkpoint.step:<7}", "bold"),
                    f" {units.size(checkpoint.bytes):>9}  {loss:<17}",
                    (" ★ best" if checkpoint.best else "", "$warning"),
                    ("  zip" if checkpoint.zip is not None else "", "$success"),
                    ("  verified" if checkpoint.verified is not None else "", "$success"),
                    (f"  damaged: {checkpoint.damage}" if checkpoint.damage else "", "$error"),
                ),
            )
        )
    return found


def orders(checkpoints: list[CheckpointInfo]) -> Orders:
    """The ways to sort them besides the newest first."""
    return {"validation loss": {str(checkpoint.step): checkpoint.eval_loss for checkpoint in checkpoints if checkpoint.eval_loss is not None}}


def verify(run: Run, step: int) -> None:
    """Read all of a checkpoint, and keep what was found for the list; takes as long as reading it from the disk.

    Raises:
        TuiFtError: it is damaged.
    """
    damage = shelf.verify(shelf.folder(run, step))
    with suppress(OSError):
        shelf.remember_verified(run, step, damage)
    if damage:
        raise TuiFtError(f"checkpoint {step} is damaged: {damage}", "A resume sets it aside and takes the one before.")


def delete(run: Run, step: int) -> None:
    """Remove it with its ZIP.

    Raises:
        TuiFtError: it must stay for now, or is gone already.
    """
    control.delete_checkpoint(run, step)


def pack(checkpoint: CheckpointInfo) -> None:
    """Write the ZIP; takes as long as copying the checkpoint.

    Raises:
        TuiFtError: the disk is full, or the checkpoint is gone.
    """
    from tui_ft.runs.archive import zip_folder

    zip_folder(Path(checkpoint.path), archive_of(checkpoint))
