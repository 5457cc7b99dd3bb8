"""What a run is made of, in a few short lines for the side of a wide dashboard."""

from __future__ import annotations

from pathlib import PurePath

from textual.content import Content

from tui_ft import units
from tui_ft.errors import TuiFtError
from tui_ft.runs import endings
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary
from tui_ft.tui.text import line
from tui_ft.tui.widgets import run_header


def facts(run: Run, summary: Summary, width: int) -> Content:
    """Model, data, method, batch, what is trained, losses; what cannot be read is left out."""
    rows: list[tuple[str, str]] = []
    try:
        recipe = run.recipe()
        method = recipe.method
        kind = {"full": "all weights", "last-layers": f"last {method.layers} layers"}.get(method.kind, f"{method.variant} r {method.r}")
        rows += [
            ("model", _short(recipe.model.name)),
            ("data", _short(recipe.data.source) + (f" ({', '.join(recipe.data.languages)})" if recipe.data.languages else "")),
            ("method", kind + (f" on {method.quantization}" if method.quantization != "none" else "")),
        ]
        plan = run.plan()
        halved = " (less memory)" if endings.REASON in plan.reasons else ""
        rows.append(("batch", f"{plan.effective_batch} = {plan.batch_words} · {plan.precision}{halved}"))
    except TuiFtError:
        pass
    if summary.trainable_parameters and summary.parameters:
        share = summary.trainable_parameters / summary.parameters
        rows.append(("trained", f"{units.count(summary.trainable_parameters)} of {units.count(summary.parameters)} ({share:.2%})"))
    if summary.peak_memory_bytes:
        rows.append(("memory", run_header.peak(summary).removeprefix("memory ")))
    losses = [f"{value:.4g}" for value in (summary.first_loss, summary.last_loss) if value is not None]
    if losses:
        rows.append(("loss", " → ".join(losses)))
    return Content("\n").join(row(name, value, width) for name, value in rows)


def row(name: str, value: str, width: int) -> Content:
    """One fact."""
    return Content.assemble((f"{name:<8}", "$foreground 60%"), line(value, max(4, width - 8)))


def _short(name: str) -> str:
    """A Hub id as it is, a path by its last part."""
    return PurePath(name).name if name.startswith("/") else name
