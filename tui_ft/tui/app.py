"""The terminal program: which screen is open, what is said to the person, and how it is left.

Nothing that matters lives here: a run is a folder and a supervisor, and both go on when this process is killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import textual
from textual.app import App, SystemCommand
from textual.dom import DOMNode
from textual.screen import Screen
from textual.theme import Theme
from textual.worker import Worker, WorkerState

from tui_ft import text
from tui_ft.errors import ConfigError, TuiFtError
from tui_ft.tui import keys
from tui_ft.tui.screen import TuiScreen

if TYPE_CHECKING:
    from tui_ft.recipe import Recipe
    from tui_ft.runs.store import Run

CALM = Theme(
    name="tui-ft",
    primary="#6aa5c9",
    secondary="#8d9bb5",
    accent="#d9a757",
    foreground="#d4d8de",
    background="#14171c",
    surface="#1a1e24",
    panel="#232830",
    success="#7fb785",
    warning="#d9a757",
    error="#d9776f",
    dark=True,
    variables={"border": "#3a424e", "border-blurred": "#2b313a", "footer-key-foreground": "#d9a757", "input-selection-background": "#6aa5c9 35%"},
)
_FEW_COLOURS = ("linux", "screen", "vt100", "vt220", "ansi")


class Ground(Screen[None]):
    """Below all others, and empty: whoever comes back to it is taken home."""

    def on_screen_resume(self) -> None:
        if isinstance(self.app, TuiFtApp) and len(self.app.screen_stack) == 1 and self.app.opened:
            self.app.open_home()


class TuiFtApp(App[int]):
    """`start`: home, demo, or the id of a run."""

    TITLE = "tui-ft"
    CSS_PATH = Path(__file__).with_name("styles.tcss")
    BINDINGS = keys.bindings("app")  # type: ignore[assignment]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (76, "-normal"), (110, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]  # noqa: RUF012

    def __init__(self, start: str = "home") -> None:
        super().__init__()
        self.start = start
        self.opened = False
        """The first screen is there."""

    def get_default_screen(self) -> Screen[None]:
        return Ground()

    def on_mount(self) -> None:
        self.register_theme(CALM)
        self.theme = "ansi-dark" if os.environ.get("TERM", "") in _FEW_COLOURS and "COLORTERM" not in os.environ else CALM.name
        if self.start == "demo":
            self.open_wizard(preset="demo")  # home is made when it is come back to: it would double the time to the first frame
        else:
            self.open_home()
            if self.start != "home":
                self._open_reference(self.start)
        self.opened = True

    def open_home(self) -> None:
        from tui_ft.tui.screens.home import HomeScreen

        self.push_screen(HomeScreen())

    def _open_reference(self, reference: str) -> None:
        from tui_ft.runs import store

        try:
            self.open_run(store.find(reference))
        except TuiFtError as error:
            self.report(error)

    def open_run(self, run: Run, instead: bool = False) -> None:
        """The dashboard of a run, on top of what is open, or instead of it."""
        from tui_ft.tui.screens.dashboard import DashboardScreen

        if instead:
            self.switch_screen(DashboardScreen(run))
        else:
            self.push_screen(DashboardScreen(run))

    def open_chat(self, run: Run) -> None:
        from tui_ft.tui.screens.chat import ChatScreen

        self.push_screen(ChatScreen(run))

    def open_wizard(self, preset: str = "", recipe: Recipe | None = None) -> None:
        """The wizard: on a preset, on a recipe (of an earlier run, say), or on the draft that was left last time."""
        from tui_ft.tui.draft import Draft
        from tui_ft.tui.wizard.screen import WizardScreen

        try:
            draft = Draft.of_preset(preset) if preset else Draft.of(recipe) if recipe else Draft.kept()
        except TuiFtError as error:
            self.report(error)
            return
        self.push_screen(WizardScreen(draft))

    def notify(self, message: str, *, markup: bool = False, **options: Any) -> None:
        """Say something in a corner; the text may be foreign, so it is never markup."""
        super().notify(text.visible(message), markup=False, **options)

    def report(self, error: TuiFtError) -> None:
        """Say what went wrong and what to do about it."""
        lines = error.lines()
        title = "Not possible as asked" if isinstance(error, ConfigError) or error.exit_code == 2 else "That failed"
        self.notify("\n".join(lines), title=title, severity="error", timeout=12)

    def worker_failed(self, event: Worker.StateChanged) -> None:
        """A fault in work behind the screen is said, and does not end the program."""
        if event.state is WorkerState.ERROR:
            error = event.worker.error
            self.notify(f"{type(error).__name__}: {text.one_line(error, 300)}", title="A fault behind the screen", severity="error", timeout=12)

    def _fatal_error(self) -> None:
        """As Textual's own, without the values of local variables: they may hold a token or a row of a private dataset."""
        from rich.segment import Segments  # these load a syntax highlighter, of no use to a program that goes well
        from rich.traceback import Traceback

        self.bell()
        traceback = Traceback(show_locals=False, width=None, suppress=[textual])
        self._exit_renderables.append(Segments(self.console.render(traceback, self.console.options)))
        self._close_messages_no_wait()

    def action_help(self) -> None:
        from tui_ft.tui.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every action of the open screen and of the app; what cannot be done now says why."""
        if isinstance(screen, TuiScreen):
            for key in keys.TABLE.get(screen.GROUP, ()):
                reason = screen.unavailable(key.action)
                about = f"not now: {reason}" if reason else f"{key.tooltip} ({key.shown})"
                yield SystemCommand(key.label, about, self._runner(key.action, screen))
        for key in keys.TABLE["app"]:
            yield SystemCommand(key.label, f"{key.tooltip} ({key.shown})", self._runner(key.action, self))
        yield SystemCommand("Theme", "Choose other colours.", self.action_change_theme)

    def _runner(self, action: str, node: DOMNode) -> Callable[[], Any]:
        """Runs the action once the palette has closed."""
        return lambda: self.call_later(self.run_action, action, node)


def run_app(start: str = "home") -> int:
    """Open the terminal program and give its exit code.

    Args:
        start: `home`, `demo`, or the id of a run to look at.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("tui-ft needs a terminal for its screens; `tui-ft --help` lists the commands that do without.", file=sys.stderr)
        return 2
    return TuiFtApp(start).run() or 0
