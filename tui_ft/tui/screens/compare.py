"""Several runs beside each other: their losses on one chart, what came of them, and only the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Footer, Static

from tui_ft import text, units
from tui_ft.runs import compare
from tui_ft.runs.compare import Comparison
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary
from tui_ft.tui import keys
from tui_ft.tui.feed import Feed
from tui_ft.tui.fields import to_text
from tui_ft.tui.screens.charting import Charting
from tui_ft.tui.text import MUTED
from tui_ft.tui.widgets import picture, run_line
from tui_ft.tui.widgets.loss_chart import RunsChart
from tui_ft.tui.widgets.raster import number

SECONDS = 1.0
MOST = len(picture.RUNS)
NAME, CELL = 26, 18


class CompareScreen(Charting):
    """Up to six runs, alive or ended; those that train go on growing."""

    GROUP = "compare"
    ABOUT = (
        "Each run has a letter, which stands at the newest point of its line. Losses can be compared where the same text is learned in the same "
        "way: another template, another mask or another validation set measures something else. Below stand only the settings that differ."
    )
    AUTO_FOCUS = "#differences"
    BINDINGS = keys.bindings("compare")  # type: ignore[assignment]
    CSS_PATH = Path(__file__).with_name("compare.tcss")

    def __init__(self, runs: Sequence[Run]) -> None:
        super().__init__()
        self.feeds = [Feed(run) for run in runs[:MOST]]
        self._told: dict[str, Content] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield RunsChart(id="loss")
        yield Static(id="legend")
        with VerticalScroll(id="differences"):
            yield Static(id="table")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#title", Static).update(Content.assemble((" Compare ", "bold"), (f"{len(self.feeds)} runs", MUTED)))
        self.call_after_refresh(self.look)
        self.set_interval(SECONDS, self.look)

    def on_resize(self) -> None:
        self.call_after_refresh(self._tell)

    def look(self) -> None:
        """Take in what is new of each run; goes on at once while one has more than a look takes in."""
        if not self.is_seen:
            return
        news = [feed.look() for feed in self.feeds]
        with self.app.batch_update():
            if any(each.events for each in news):
                self.show_curves()
            self._tell()
        if any(each.more for each in news):
            self.call_after_refresh(self.look)

    def show_curves(self) -> None:
        runs = [(feed.curves.steps, feed.curves.loss, feed.curves.progress.total_steps) for feed in self.feeds]
        self.query_one(RunsChart).show(runs)

    def _tell(self) -> None:
        found = compare.compare([feed.run for feed in self.feeds])
        width = max(40, self.size.width - 2)
        self._put("#legend", Content("\n").join(_named(role, summary, width) for role, summary in _lettered(found)))
        self._put("#table", differences(found, width))

    def _put(self, selector: str, shown: Content) -> None:
        """Show a text, if it is another one than before: an update costs a layout."""
        if self._told.get(selector) != shown:
            self._told[selector] = shown
            self.query_one(selector, Static).update(shown)

    def unavailable(self, action: str) -> str:
        return self.why_not_chart(action)

    def action_leave(self) -> None:
        self.dismiss()


def _lettered(found: Comparison) -> list[tuple[picture.Role, Summary]]:
    return list(zip(picture.RUNS, found.summaries, strict=False))


COLOURS = ("$primary-lighten-2", "$warning", "$success", "$error", "$secondary", "$foreground")
"""Of the letters, as in the chart."""


def _named(role: picture.Role, summary: Summary, width: int) -> Content:
    """`A ▶ running  demo-2026…  loss 1.22  validation 1.31`."""
    facts = f"loss {number(round(summary.last_loss, 4))}" if summary.last_loss is not None else "no loss yet"
    facts += f" · validation {summary.best_eval_loss:.4g}" if summary.best_eval_loss is not None else ""
    room = max(12, width - 16 - len(facts))
    name = run_line.middle(text.one_line(summary.run), room).ljust(room)
    colour = COLOURS[picture.RUNS.index(role)]
    return Content.assemble(
        (f"{role[-1].upper()} ", f"bold {colour}"), run_line.state(summary.state).pad_right(11 - len(summary.state) - 2), f" {name} {facts}"
    )


def differences(found: Comparison, width: int) -> Content:
    """What came of the runs and the settings that differ, a column a run, as many as there is room for."""
    letters = [role[-1].upper() for role, _ in _lettered(found)]
    cell = max(8, min(CELL, (width - NAME) // len(letters)))
    rows = [Content.assemble(" " * NAME, *((f"{letter:<{cell}}", "bold") for letter in letters))]
    told = {
        "steps": [f"{summary.step} of {summary.total_steps or '?'}" for summary in found.summaries],
        "first loss": [_loss(summary.first_loss) for summary in found.summaries],
        "last loss": [_loss(summary.last_loss) for summary in found.summaries],
        "best validation loss": [_loss(summary.best_eval_loss) for summary in found.summaries],
        "tokens": [units.count(summary.tokens) for summary in found.summaries],
        "tokens/s": [units.count(summary.tokens_per_second) if summary.tokens_per_second else "–" for summary in found.summaries],
        "peak memory": [units.size(summary.peak_memory_bytes) if summary.peak_memory_bytes else "–" for summary in found.summaries],
    }
    rows += [_row(name, values, cell) for name, values in told.items()]
    rows.append(Content(""))
    rows += [_row(key, [to_text(value) or "–" for value in values], cell) for key, values in found.differs.items()]
    if not found.differs:
        rows.append(Content.styled("Their settings are the same.", MUTED))
    return Content("\n").join(rows)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _row(name: str, values: Sequence[str], cell: int) -> Content:
    return Content.assemble((f"{name[: NAME - 1]:<{NAME}}", MUTED), *(text.one_line(value, cell - 1).ljust(cell) for value in values))
