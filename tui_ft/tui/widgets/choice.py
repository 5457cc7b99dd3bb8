"""A choice between a few words on one line: `○ full  ○ last-layers  ● lora`. Left and right choose; enter goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from tui_ft.tui.text import MUTED

_SHOWN = {"true": "yes", "false": "no"}


class Choice(Widget, can_focus=True):
    """One widget for what would be a menu of six: quick over SSH, and every option is in sight."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Choose", show=False),
        Binding("right,space", "move(1)", "Choose", show=False),
        Binding("home", "move(-99)", "First", show=False),
        Binding("end", "move(99)", "Last", show=False),
        Binding("enter", "submit", "Go on", show=False),
    ]
    value: reactive[str] = reactive("", init=False)

    @dataclass
    class Changed(Message):
        """Another option was chosen by the person."""

        choice: Choice
        value: str

    @dataclass
    class Submitted(Message):
        """Enter: the choice is made."""

        choice: Choice

    def __init__(self, options: tuple[str, ...], value: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.options = options
        self.set_reactive(Choice.value, value)

    def render(self) -> Content:
        """All options where there is room for them, else the chosen one with its place in the row."""
        shown = [_SHOWN.get(option, option) for option in self.options]
        if sum(len(option) + 4 for option in shown) - 2 <= self.size.width:
            parts = [
                Content.assemble(("● ", "$accent bold"), (label, "bold")) if option == self.value else Content.styled(f"○ {label}", MUTED)
                for option, label in zip(self.options, shown, strict=True)
            ]
            return Content("  ").join(parts)
        place = f"  {self.options.index(self.value) + 1} of {len(self.options)}" if self.value in self.options else ""
        return Content.assemble(("‹ ", "$accent"), (_SHOWN.get(self.value, self.value), "bold"), (" ›", "$accent"), (place, MUTED))

    def action_move(self, by: int) -> None:
        at = self.options.index(self.value) if self.value in self.options else (-1 if by > 0 else len(self.options))
        self._choose(self.options[max(0, min(len(self.options) - 1, at + by))])

    def action_submit(self) -> None:
        self.post_message(self.Submitted(self))

    def on_click(self, event: events.Click) -> None:
        at = 0
        for option in self.options:
            width = len(_SHOWN.get(option, option)) + 4
            if at <= event.x < at + width - 2:
                self._choose(option)
                return
            at += width

    def _choose(self, value: str) -> None:
        if value != self.value:
            self.value = value
            self.post_message(self.Changed(self, value))
