"""A run in one line, as wide as there is room, and the words and signs for its state."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from tui_ft import text, units
from tui_ft.runs.queue import ordinal
from tui_ft.runs.summary import Summary
from tui_ft.tui.text import line
from tui_ft.tui.widgets.raster import Columns, Glyphs, levels, number

SIGNS = {
    "queued": ("·", "$foreground 60%"),
    "starting": ("○", "$accent"),
    "running": ("▶", "$success"),
    "paused": ("‖", "$warning"),
    "stopped": ("■", "$foreground 60%"),
    "finished": ("✓", "$primary"),
    "failed": ("✗", "$error"),
    "lost": ("?", "$error"),
}
"""For each state a sign and a colour; the word always stands beside them."""
BAR, CURVE, END = 8, 10, 10


def state(name: str) -> Content:
    """A state as sign and word."""
    sign, colour = SIGNS.get(name, ("·", "$foreground 60%"))
    return Content.styled(f"{sign} {name}", colour)


def middle(label: str, width: int) -> str:
    """`label` cut in its middle: a run's id begins with the recipe's name and ends with its time."""
    if len(label) <= width:
        return label
    tail = min(7, width // 2)
    return f"{label[: max(0, width - tail - 1)]}…{label[len(label) - tail :]}"


def bar(done: int, total: int | None, width: int) -> Content:
    """A line of progress, half a cell fine; blank while the number of steps is unknown."""
    if not total:
        return Content(" " * width)
    halves = round(min(1.0, done / total) * width * 2)
    full = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return Content.assemble((full, "$success" if done >= total else "$primary"), ("─" * (width - len(full)), "$foreground 25%"))


def sparkline(points: Sequence[tuple[float, float]], total: int | None, width: int, glyphs: Glyphs) -> str:
    """The loss over the whole run in one row."""
    columns = Columns(width, (0, max(float(total or 0), points[-1][0] if points else 1)))
    columns.add([x for x, _ in points], [y for _, y in points])
    return levels(columns, glyphs)


def run_line(summary: Summary, points: Sequence[tuple[float, float]], width: int, glyphs: Glyphs) -> Content:
    """State, name, progress, loss with its curve, and the time left; the narrower, the fewer of them."""
    share = f"{100 * min(1.0, summary.step / summary.total_steps):3.0f}%" if summary.total_steps else f"{summary.step:4d}"
    loss = "–" if summary.last_loss is None else number(round(summary.last_loss, 3))
    end = units.duration(summary.eta_seconds) if summary.eta_seconds is not None else summary.stage
    if summary.queue_position is not None:
        end = ordinal(summary.queue_position)
    parts: list[Content] = [Content.styled(f" {share}", "bold" if summary.state == "running" else ""), Content(f" {loss:>6}")]
    room = width - 11 - 12  # what state, share and loss take
    if room >= 40:
        parts.append(Content.styled(" " + sparkline(points, summary.total_steps, CURVE, glyphs), "$secondary"))
        room -= CURVE + 1
    if room >= 27:
        parts.insert(0, Content.assemble(" ", bar(summary.step, summary.total_steps, BAR)))
        room -= BAR + 1
    if room >= 29:
        parts.append(Content.styled(f" {text.one_line(end, END):<{END}}", "$foreground 60%"))
        room -= END + 1
    name = middle(text.one_line(summary.run), room)
    return Content.assemble(state(summary.state).pad_right(11 - len(state(summary.state).plain)), name.ljust(room), *parts)


def run_detail(summary: Summary, width: int) -> Content:
    """A run in two lines: how it stands and why, what there is of it."""
    facts = [f"{len(summary.checkpoints)} checkpoints"] if summary.checkpoints else []
    if summary.best_eval_loss is not None:
        facts.append(f"best validation loss {summary.best_eval_loss:.4g}")
    if summary.model:
        facts.append("model ready: c chats with it")
    if summary.queue_position is not None:
        facts.append("K and J move it in the queue, u takes it out")
    first = summary.reason or {"running": "training; enter looks at it, space and m compare it"}.get(summary.state, summary.state)
    return Content.assemble(line(first, width), "\n", line(" · ".join(facts), width, "$foreground 60%"))
