"""The checkpoints of a run as lines, and one of them as a file to copy away."""

from __future__ import annotations

from pathlib import Path

from textual.content import Content

from tui_ft import units
from tui_ft.runs.summary import CheckpointInfo


def archive_of(checkpoint: CheckpointInfo) -> Path:
    """Where the ZIP of a checkpoint stands: beside its folder."""
    return Path(checkpoint.path + ".zip")


def lines(checkpoints: list[CheckpointInfo]) -> list[tuple[str, Content]]:
    """(id, line) of each, the newest first; the best by validation loss is named."""
    measured = [checkpoint.eval_loss for checkpoint in checkpoints if checkpoint.eval_loss is not None]
    best = min(measured, default=None)
    found = []
    for checkpoint in reversed(checkpoints):
        loss = f"validation {checkpoint.eval_loss:.4f}" if checkpoint.eval_loss is not None else "not evaluated"
        found.append(
            (
                str(checkpoint.step),
                Content.assemble(
                    (f"step {checkpoint.step:<7}", "bold"),
                    f" {units.size(checkpoint.bytes):>9}  {loss:<17}",
                    (" ★ best" if best is not None and checkpoint.eval_loss == best else "", "$warning"),
                    ("  zip" if archive_of(checkpoint).is_file() else "", "$success"),
                ),
            )
        )
    return found


def pack(checkpoint: CheckpointInfo) -> None:
    """Write the ZIP; takes as long as copying the checkpoint.

    Raises:
        TuiFtError: the disk is full, or the checkpoint is gone.
    """
    from tui_ft.runs.archive import zip_folder

    zip_folder(Path(checkpoint.path), archive_of(checkpoint))
