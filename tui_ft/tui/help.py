"""The help screen: what the open screen is for, what the focused field means, and every key."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from tui_ft.tui import keys
from tui_ft.tui.screen import Modal, TuiScreen
from tui_ft.tui.text import content
from tui_ft.tui.widgets.options import Narrowed


class HelpScreen(Modal[None]):
    """Shown over the screen it explains; any of escape, q, enter and ? closes it."""

    BINDINGS = [Binding("escape,q,enter,f1,question_mark", "dismiss", "Close")]  # noqa: RUF012

    def __init__(self, explained: Screen[object]) -> None:
        super().__init__()
        self.explained = explained
        self.focused_text = explained.help_text() if isinstance(explained, TuiScreen) else ""  # asked while it still has the focus

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help") as box:
            box.border_title = "Help"
            box.border_subtitle = "esc closes"
            if isinstance(self.explained, TuiScreen):
                if self.focused_text:
                    yield Static(content(self.focused_text), classes="help-focused")
                if self.explained.ABOUT:
                    yield Static(content(self.explained.ABOUT), classes="help-about")
            narrowed = ["narrowed"] if self.explained.query(Narrowed) else []
            for group in (getattr(self.explained, "GROUP", ""), "list", *narrowed, "app"):
                if group in keys.TABLE:
                    yield Static(self._table(group), classes="help-keys")

    def _table(self, group: str) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for key in keys.TABLE[group]:
            if key.listed:
                reason = self.explained.unavailable(key.action) if isinstance(self.explained, TuiScreen) else ""
                about = Text.assemble(key.tooltip, (f" Not now: {reason}." if reason else "", "dim"))
                table.add_row(Text(key.shown, style="bold"), Text(key.label), about)
        return table

    async def action_dismiss(self, result: None = None) -> None:
        self.dismiss(result)
