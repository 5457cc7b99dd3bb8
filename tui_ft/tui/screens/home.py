"""Home: the runs as they are now, the presets, and the ways to begin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from tui_ft import units
from tui_ft.tui import keys
from tui_ft.tui.screens.run_actions import RunActions
from tui_ft.tui.text import line
from tui_ft.tui.widgets.loss_chart import terminal_glyphs
from tui_ft.tui.widgets.options import ScreenOptions
from tui_ft.tui.widgets.preset_list import PresetList
from tui_ft.tui.widgets.run_line import run_detail, run_line
from tui_ft.tui.widgets.run_table import ORDERS, Row, RunTable

SECONDS = 0.5
WELCOME = """No runs yet.

Press d for the demo: a small model learns eighty short conversations in about a minute, on any machine, without a download.
You see what it is trained on, watch the loss fall, and talk to it afterwards.

Or press n to set up your own run, or choose a preset and press enter."""


@dataclass
class Machine(Message):
    """What this machine trains on."""

    words: str


class HomeScreen(RunActions):
    """Runs above presets; side by side where the terminal is wide."""

    GROUP = "home"
    ABOUT = (
        "Home lists your runs, newest first, as they are now, and the recipes to start from. Runs live in folders of their own: "
        "leaving this program, closing the terminal or losing the connection does not touch them."
    )
    BINDINGS = keys.bindings("home")  # type: ignore[assignment]
    CSS_PATH = Path(__file__).with_name("home.tcss")

    def __init__(self) -> None:
        super().__init__()
        self.table = RunTable()
        self.marked = []
        self.order = "newest"
        self.glyphs = terminal_glyphs()

    def compose(self) -> ComposeResult:
        yield Static(Content.assemble((" tui-ft ", "bold $accent"), ("fine-tuning in runs no terminal can kill", "$foreground 60%")), id="title")
        with Container(id="panes"):
            with Vertical(id="runs-pane") as pane:
                pane.border_title = "Runs"
                yield Input(placeholder="part of a name, or a state", id="filter", compact=True)
                yield Static(WELCOME, id="welcome")
                yield ScreenOptions(id="runs")
            with Vertical(id="presets-pane") as pane:
                pane.border_title = "Presets"
                yield PresetList(id="presets")
        yield Static("", id="detail")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self.query_one(PresetList).load()
        self.look(first=True)
        self.query_one("#runs" if self.table.rows else "#presets").focus()
        self.set_interval(SECONDS, self.look)
        self.run_worker(self._read_machine, thread=True, exit_on_error=False)

    def on_screen_resume(self) -> None:
        self.query_one(PresetList).load()
        self.look()

    def on_resize(self) -> None:
        self.call_after_refresh(self._list_runs)

    @property
    def row(self) -> Row | None:
        """The run under the cursor."""
        return self.table.rows.get(self.query_one("#runs", ScreenOptions).selected or "")

    @property
    def on_presets(self) -> bool:
        return self.query_one("#presets").has_focus or not self.table.rows

    def _read_machine(self) -> None:
        from tui_ft import hardware

        machine = hardware.read()
        gpus = [f"{gpu.name}, {units.size(gpu.free_bytes)} of {units.size(gpu.total_bytes)} free" for gpu in machine.gpus[:2]]
        self.post_message(Machine(" · ".join(gpus) or f"no GPU · {machine.cpus} CPU cores"))

    def on_machine(self, event: Machine) -> None:
        self.query_one("#presets-pane").border_subtitle = line(event.words, 50)  # type: ignore[assignment]

    def look(self, first: bool = False) -> None:
        """One look at the runs: only the lines that changed are drawn again."""
        if not self.is_seen and not first:
            return
        changed = self.table.refresh()
        for run_id in changed & self.table.rows.keys():
            self.tui.noticed(self.table.rows[run_id].summary)
        live = sum(row.is_live for row in self.table.rows.values())
        self.tui.show_title(f"{live} live · tui-ft" if live else "tui-ft")
        if not changed and not first:
            return
        shown = self._shown()
        options = self.query_one("#runs", ScreenOptions)
        if [option.id for option in options.options] != [row.run.id for row in shown]:
            self._list_runs()
        else:
            for index, row in enumerate(shown):
                if row.run.id in changed:
                    options.replace_option_prompt_at_index(index, self._line(row))
        self._tell()

    def _shown(self) -> list[Row]:
        return self.table.matching(self.query_one("#filter", Input).value, self.order)

    def _line(self, row: Row) -> Content:
        width = max(20, self.query_one("#runs-pane").content_size.width - 1)
        if not self.marked:
            return run_line(row.summary, row.points, width, self.glyphs)
        mark = Content.styled("* ", "bold $accent") if row.run.id in self.marked else Content("  ")
        return Content.assemble(mark, run_line(row.summary, row.points, width - 2, self.glyphs))

    def show_marks(self) -> None:
        self._list_runs()

    def _list_runs(self) -> None:
        options, shown = self.query_one("#runs", ScreenOptions), self._shown()
        options.offer([Option(self._line(row), id=row.run.id) for row in shown])
        self.query_one("#welcome").display = not self.table.rows
        options.display = bool(self.table.rows)
        self._tell()

    def _tell(self) -> None:
        """Counts in the border, the selected run's story below."""
        live = sum(row.is_live for row in self.table.rows.values())
        total = len(self.table.rows)
        shown, marked = len(self._shown()), f" · {len(self.marked)} marked" if self.marked else ""
        count = f"{shown} of {total}" if shown < total else f"{total} in all"
        self.query_one("#runs-pane").border_subtitle = f"{live} live · {count}{marked}" if total else ""
        self.query_one("#detail", Static).update(self._detail())
        self.refresh_keys()

    def _detail(self) -> Content:
        if self.on_presets:
            return self.query_one(PresetList).detail(self.size.width - 2)
        row = self.row
        return run_detail(row.summary, self.size.width - 2) if row else Content("nothing matches; escape shows all runs")

    @on(OptionList.OptionHighlighted)
    def _moved(self) -> None:
        self._tell()

    @on(OptionList.OptionSelected)
    def _clicked(self) -> None:
        self.action_open()

    def on_descendant_focus(self) -> None:
        self._tell()

    def action_open(self) -> None:
        if self.on_presets:
            name = self.query_one("#presets", ScreenOptions).selected
            if name:
                self.tui.open_wizard(preset=name)
        elif self.row:
            self.tui.open_run(self.row.run)

    def action_new(self) -> None:
        self.tui.open_wizard()

    def action_demo(self) -> None:
        self.tui.open_wizard(preset="demo")

    def action_sort(self) -> None:
        orders = list(ORDERS)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self.query_one("#runs-pane").border_title = "Runs" if self.order == "newest" else f"Runs by {self.order}"
        self._list_runs()

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    @on(Input.Changed, "#filter")
    def _narrow(self) -> None:
        self._list_runs()

    @on(Input.Submitted, "#filter")
    def _filtered(self) -> None:
        self.query_one("#runs").focus()

    def key_escape(self) -> None:
        """Show all runs again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self.query_one("#runs" if self.table.rows else "#presets").focus()

    def action_quit(self) -> None:
        self.app.exit(0)
