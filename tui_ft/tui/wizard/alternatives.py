"""The plan's other settings as a list: enter takes one, and one more line takes it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui_ft.recipe import plan as plans
from tui_ft.tui.draft import Draft
from tui_ft.tui.text import MUTED, line
from tui_ft.tui.widgets.options import Options

BACK = "back"
"""The id of the line that takes the last change back."""


@dataclass(frozen=True)
class Taken:
    """A setting that was taken from the list, and what stood there before."""

    words: str
    before: dict[str, Any]


class Alternatives(Vertical):
    """Shown where the plan has other settings to offer."""

    @dataclass
    class Chosen(Message):
        option: plans.Option | None
        """None takes the last one back."""

    def __init__(self) -> None:
        super().__init__(id="alternatives", classes="list")
        self.display = False
        self._offered: list[plans.Option] = []

    def compose(self) -> ComposeResult:
        yield Options(id="alternative-list")

    def show(self, offered: list[plans.Option], taken: Taken | None) -> None:
        """The list is built anew only where it says something else, so that the cursor stays."""
        self.display = bool(offered or taken)
        self._offered = sorted(offered, key=lambda option: not option.remedy)
        needed = any(option.remedy for option in offered)
        self.border_title = "Does not fit: enter on one of these makes it fit" if needed else "Other settings: enter takes one"
        lines = [(_text(option), str(number)) for number, option in enumerate(self._offered)]
        if taken:
            lines.append((Content.assemble(("undo  ", "bold"), line(taken.words)), BACK))
        listed = self.query_one(Options)
        if [(option.prompt, option.id) for option in listed.options] != lines:
            at = listed.highlighted
            listed.set_options([Option(prompt, id=name) for prompt, name in lines])
            listed.highlighted = min(at or 0, len(lines) - 1) if lines else None

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(None if event.option_id == BACK else self._offered[int(event.option_id or 0)]))


def _text(option: plans.Option) -> Content:
    sign = "→ " if option.remedy else "  "
    about = option.text.removeprefix(option.words).lstrip(":, ")
    return Content.assemble((sign, "$text-success"), line(option.words, style="bold"), line(f"  {about}" if about else "", style=MUTED))


def take(draft: Draft, option: plans.Option) -> Taken:
    """Put the option's values into the draft; what stood there comes back with it."""
    before = {key: draft.value(key) for key in option.changes}
    for key, value in option.changes.items():
        draft.put(key, value)
    return Taken(option.words, before)


def take_back(draft: Draft, taken: Taken) -> None:
    for key, value in taken.before.items():
        draft.put(key, value)
