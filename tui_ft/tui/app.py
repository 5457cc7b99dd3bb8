"""The terminal program: which screen is open, what is said to the person, and how it is left.

Nothing that matters lives here: a run is a folder and a supervisor, and both go on when this process is killed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import textual
from textual.app import App, SystemCommand
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.screen import Screen
from textual.theme import Theme
from textual.worker import Worker, WorkerState

from tui_ft import text
from tui_ft.errors import ConfigError, TuiFtError
from tui_ft.tui import keys, settings, terminal, themes
from tui_ft.tui.screen import SizedScreen, TuiScreen

if TYPE_CHECKING:
    from tui_ft.recipe import Recipe
    from tui_ft.runs.store import Run
    from tui_ft.runs.summary import Summary


class Ground(SizedScreen[None]):
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
        self.settings, self._problems = settings.load()
        keys.REBOUND.clear()
        keys.REBOUND.update(self.settings.keys)
        terminal.only_ascii = self.settings.ascii or not terminal.knows_unicode()
        self._states: dict[str, str] = {}
        """Of the runs that were looked at, to notice when one ends."""
        self._title_shown = ""
        self._theme_kept = ""
        if terminal.is_still(self.settings.motion):
            self.animation_level = "none"
        self.start = start
        self.opened = False
        """The first screen is there."""

    def _keep_theme(self, theme: Theme) -> None:
        if theme.name == self._theme_kept:
            return
        self._theme_kept = theme.name
        try:
            settings.keep_theme(theme.name)
        except OSError as error:
            self.notify(f"the theme is not kept for next time: {error.strerror}", severity="warning")

    def get_line_filters(self) -> Sequence[LineFilter]:
        """What every line goes through before it is written."""
        filters = super().get_line_filters()
        if not terminal.only_ascii:
            return filters
        from tui_ft.tui.ascii import OnlyAscii

        return [*filters, OnlyAscii()]

    def get_default_screen(self) -> Screen[None]:
        return Ground()

    def on_mount(self) -> None:
        for theme in themes.OURS:
            self.register_theme(theme)
        self.theme = self._theme_kept = themes.fitting(self.settings.theme)
        for name in self.available_themes.keys() - set(themes.NAMES):
            self.unregister_theme(name)  # the library's others were never looked at with these screens
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        self.set_keymap(self.settings.keys)
        for problem in self._problems:
            self.notify(problem, title="settings.yaml", severity="warning", timeout=12)
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

    def open_comparison(self, runs: Sequence[Run]) -> None:
        from tui_ft.tui.screens.compare import CompareScreen

        self.push_screen(CompareScreen(runs))

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

    def show_title(self, words: str) -> None:
        """Tell the terminal what is looked at, for its tab or tmux's window list."""
        if words != self._title_shown:
            self._title_shown = words
            self._to_terminal(terminal.title(words))

    def noticed(self, summary: Summary) -> None:
        """Take in how a run stands now; one that has ended since the last look is announced, unless the person ended it."""
        from tui_ft.runs.summary import ALIVE

        before, self._states[summary.run] = self._states.get(summary.run), summary.state
        if before in ALIVE and summary.state in ("finished", "failed", "lost"):
            if self.settings.bell:
                self.bell()
            if self.settings.notify:
                self._to_terminal(terminal.notification(f"{summary.run} {summary.state}"))

    def _to_terminal(self, sequence: str) -> None:
        """Through the driver, whose thread writes the screen: between two of its writes, never within one."""
        if self._driver is not None and not self.is_headless and terminal.has_title():
            self._driver.write(sequence)

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

    def action_glossary(self) -> None:
        from tui_ft.tui.screens.glossary import GlossaryScreen

        if not isinstance(self.screen, GlossaryScreen):
            self.push_screen(GlossaryScreen())

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


def run_app(start: str = "home", mouse: bool = True) -> int:
    """Open the terminal program and give its exit code.

    Args:
        start: `home`, `demo`, or the id of a run to look at.
        mouse: take part in what the mouse does; else the terminal selects text by it.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("tui-ft needs a terminal for its screens; `tui-ft --help` lists the commands that do without.", file=sys.stderr)
        return 2
    app = TuiFtApp(start)
    with terminal.own_title():
        return app.run(mouse=mouse and app.settings.mouse) or 0
