"""The dashboard of one run: its curves, where it stands, what it says, and the keys that steer it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Container, Grid, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Footer, Log, Static, TabbedContent, TabPane
from textual.widgets.option_list import Option

from tui_ft import units
from tui_ft.errors import TuiFtError
from tui_ft.hardware import GpuReading
from tui_ft.runs import control
from tui_ft.runs.events import Event
from tui_ft.runs.store import Run
from tui_ft.runs.summary import CheckpointInfo, Summary
from tui_ft.tui import keys
from tui_ft.tui.feed import Feed, News
from tui_ft.tui.screens.charting import Charting
from tui_ft.tui.screens.controls import ControlScreen
from tui_ft.tui.widgets import checkpoint_list, run_facts, run_header, sample_list, telling
from tui_ft.tui.widgets.loss_chart import LossChart, StepSparkline
from tui_ft.tui.widgets.options import Narrowed, Options
from tui_ft.tui.widgets.raster import number
from tui_ft.tui.widgets.run_log import RunLog

SECONDS = 0.5
GPU_SECONDS = 3.0
SAMPLES = 200
HOLDS = {"log": "#lines", "checkpoints": "#checkpoint-list", "samples": "#samples VerticalScroll"}
"""The panels in their order, and what has the focus in each."""


@dataclass
class GpuRead(Message):
    """The newest reading of the run's GPU; None without one."""

    reading: GpuReading | None


class DashboardScreen(Charting, ControlScreen):
    """Shows a run, alive or ended. It only reads; what it changes goes through commands that the worker acknowledges."""

    GROUP = "dashboard"
    ABOUT = (
        "The bright line is the moving average of the training loss, the faint band goes from its lowest to its highest value, and "
        "the marks are the validation loss: when it rises while the training loss falls, the model learns by heart. "
        "Leaving this screen, or the program, leaves the run as it is."
    )
    AUTO_FOCUS = "#lines"
    BINDINGS = keys.bindings("dashboard")  # type: ignore[assignment]
    CSS_PATH = Path(__file__).with_name("dashboard.tcss")

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.feed = Feed(run)
        self.gpu: GpuReading | None = None
        self._ticks = 0
        self._newest_sample: Event | None = None
        self._texts: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield Static(id="progress")
        yield Static(id="notice")
        with Container(id="body"):
            with Vertical(id="curves"):
                yield LossChart(id="loss")
                with Grid(id="sparklines"):
                    yield StepSparkline("rate", id="learning-rate")
                    yield StepSparkline("grad", id="grad-norm")
                    yield StepSparkline("tok/s", id="speed")
                    yield StepSparkline("mem", id="memory")
            with Vertical(id="side"):
                yield Static(id="facts")
                with TabbedContent(id="panels"):
                    with TabPane("Log", id="log"):
                        yield RunLog(id="run-log")
                    with TabPane("Checkpoints", id="checkpoints"):
                        yield Narrowed(Options(id="checkpoint-list"))
                    with TabPane("Samples", id="samples"), VerticalScroll():
                        yield Static("No samples yet: they come with each evaluation, for the prompts of the recipe.", id="sample-list")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.call_after_refresh(self.look)  # once the log knows how wide it is
        self.set_interval(SECONDS, self._tick)
        self.set_interval(GPU_SECONDS, self._read_gpu)

    def on_resize(self) -> None:
        self.call_after_refresh(self.show_head)
        log = self.query_one("#lines", Log)
        if log.is_vertical_scroll_end:  # still as it was laid out before; what showed the newest line goes on showing it
            self.call_after_refresh(log.scroll_end, animate=False)

    def _tick(self) -> None:
        """Every second time is enough, but for whoever waits for an answer or for the first step."""
        self._ticks += 1
        waits = bool(self.requests.pending) or self.summary is None or self.summary.state != "running"
        if self.is_seen and (waits or self._ticks % 2 == 0):
            self.look()

    def look(self) -> None:
        """Take in what is new and show it; goes on at once, between two key presses, while there is more to read."""
        news = self.feed.look()
        self.summary = news.summary
        self.tui.noticed(news.summary)
        self.tui.show_title(run_header.short(news.summary))
        self.requests.settle(self.feed.answers, news.summary.state)
        with self.app.batch_update():
            self._show(news)
        if news.more:
            self.call_after_refresh(self.look)

    def _show(self, news: News) -> None:
        self.show_head()
        if news.lines:
            self.query_one(RunLog).add(news.lines)
        if news.events:
            self.show_curves()
            self._show_samples()
        self._show_checkpoints(news.summary.checkpoints)
        self.refresh_keys()

    def show_head(self) -> None:
        if self.summary is None:
            return
        width = self.size.width - 2
        stage = (self.feed.curves.progress.stage_done, self.feed.curves.progress.stage_total)
        self._put("#title", run_header.title(self.summary, width))
        self._put("#progress", run_header.progress(self.summary, stage, width))
        self._put("#notice", run_header.notice(self.summary, self._alert(), self.requests.line, width))
        if self.has_class("-wide"):
            facts = self._facts(self.summary, max(20, self.query_one("#facts").content_size.width))
            self._put("#facts", facts)
            # Its height is said, not found: the library remembers the one it found when a text comes between a change of style and its layout.
            self.query_one("#facts").styles.height = facts.plain.count("\n") + 1

    def _put(self, selector: str, shown: Content) -> None:
        """Show a text, if it is another one than before: an update costs a redraw."""
        if self._texts.get(selector) != shown.markup:
            self._texts[selector] = shown.markup
            self.query_one(selector, Static).update(shown, layout=False)

    def _facts(self, summary: Summary, width: int) -> Content:
        told = run_facts.facts(self.run, summary, width)
        return Content("\n").join([told, run_facts.row("gpu", run_header.gpu(self.gpu), width)]) if self.gpu else told

    def _alert(self) -> str:
        """Cause and remedy of the newest error that the present attempt raised and has not taken back; warnings stand in the log alone."""
        errors = [alert for alert in self.feed.curves.progress.alerts if alert.severity == "error"]
        return telling.alert(errors[-1].model_dump()) if errors else ""

    def show_curves(self) -> None:
        curves, total = self.feed.curves, self.summary.total_steps if self.summary else None
        marks = [(step, loss) for step, loss, _ in curves.evals]
        chart = self.query_one(LossChart)
        chart.show(curves.steps, curves.loss, marks, total, (curves.lowest, curves.highest), curves.settled)
        series: tuple[tuple[str, Sequence[float], Callable[[float], str]], ...] = (
            ("learning-rate", curves.learning_rate, lambda value: f"{value:.3g}"),
            ("grad-norm", curves.grad_norm, number),
            ("speed", curves.tokens_per_second, units.count),
            ("memory", curves.memory_bytes, partial(run_header.memory, gpu=self.gpu)),
        )
        for name, values, words in series:
            newest = values[-1] if values else math.nan
            told = words(newest) if math.isfinite(newest) else "–"
            self.query_one(f"#{name}", StepSparkline).show(curves.steps, values, chart.domain, told, curves.settled)

    def _show_samples(self) -> None:
        samples = self.feed.curves.samples
        if not samples or samples[-1] is self._newest_sample:
            return
        self._newest_sample = samples[-1]
        self.query_one("#sample-list", Static).update(sample_list.shown(samples[-SAMPLES:]))

    def _show_checkpoints(self, checkpoints: list[CheckpointInfo]) -> None:
        options = self.query_one("#checkpoint-list", Options)
        lines = checkpoint_list.lines(checkpoints)
        if [(option.id, option.prompt) for option in options.offered] != lines:
            options.offer([Option(prompt, id=step) for step, prompt in lines], checkpoint_list.orders(checkpoints))

    def _read_gpu(self) -> None:
        if self.is_seen and self.summary and self.summary.state in control.ALIVE:
            self.run_worker(self._gpu_in_thread, thread=True, exclusive=True, group="gpu", exit_on_error=False)

    def _gpu_in_thread(self) -> None:
        from tui_ft import hardware

        try:
            chosen = self.run.plan().gpu
        except TuiFtError:
            return
        if chosen:
            same = [gpu for gpu in hardware.read().gpus if (gpu.uuid == chosen.uuid if chosen.uuid else gpu.index == chosen.index)]
            self.post_message(GpuRead(same[0] if same else None))

    def on_gpu_read(self, event: GpuRead) -> None:
        self.gpu = event.reading

    @property
    def checkpoint(self) -> CheckpointInfo | None:
        """The selected checkpoint, by default the newest."""
        there = self.summary.checkpoints if self.summary else []
        selected = self.query_one("#checkpoint-list", Options).selected if self.is_mounted else None
        return next((checkpoint for checkpoint in there if str(checkpoint.step) == selected), there[-1] if there else None)

    def action_panel(self) -> None:
        panels = self.query_one("#panels", TabbedContent)
        order = list(HOLDS)
        panels.active = order[(order.index(panels.active) + 1) % len(order)]
        self.call_after_refresh(self.query_one(HOLDS[panels.active]).focus)  # once it is shown; what is hidden cannot have the focus

    def action_search(self) -> None:
        self.query_one("#panels", TabbedContent).active = "log"
        self.query_one(RunLog).ask()

    def action_trouble(self) -> None:
        self.query_one("#panels", TabbedContent).active = "log"
        log = self.query_one(RunLog)
        log.toggle_trouble()
        self.query_one("#panels", TabbedContent).get_tab("log").label = f"Log ({log.told})" if log.told else "Log"

    def unavailable(self, action: str) -> str:
        return self.why_not_chart(action) or super().unavailable(action)

    def action_leave(self) -> None:
        if self.summary and self.summary.state in control.ALIVE:
            self.notify(f"{self.run.id}: training continues")
        self.dismiss()
