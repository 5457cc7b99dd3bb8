"""The glossary: the words of the field, searched as one types."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from tui_ft.tui import keys
from tui_ft.tui.glossary import TERMS
from tui_ft.tui.screen import Modal
from tui_ft.tui.text import MUTED


class GlossaryScreen(Modal[None]):
    """Shown over whatever is open; typing narrows the list, the arrow keys scroll it."""

    BINDINGS = keys.bindings("glossary")  # type: ignore[assignment]
    AUTO_FOCUS = "#term"

    def __init__(self, needle: str = "") -> None:
        super().__init__()
        self.needle = needle

    def compose(self) -> ComposeResult:
        with Vertical(id="glossary") as box:
            box.border_title = "Glossary"
            box.border_subtitle = "type to search · ↑ ↓ scroll · esc closes"
            yield Input(self.needle, placeholder="a word, or a setting", id="term", compact=True)
            with VerticalScroll(id="terms", can_focus=False):
                yield Static(id="found")

    def on_mount(self) -> None:
        self._show(self.needle)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._show(event.value)

    def _show(self, needle: str) -> None:
        found = [term for term in TERMS if term.matches(needle.strip())]
        entries = [
            Content.assemble((term.name, "bold"), (f"  {', '.join(term.keys)}" if term.keys else "", MUTED), f"\n{term.about}\n") for term in found
        ]
        self.query_one("#found", Static).update(Content("\n").join(entries) if entries else Content.styled("No word here holds that.", MUTED))
        self.query_one("#terms").scroll_home(animate=False)

    def action_scroll(self, by: int) -> None:
        self.query_one("#terms").scroll_relative(y=by, animate=False)
