"""Where the wizard stands: every step by name with its state, the open one marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from tui_ft.tui.text import MUTED

State = Literal["done", "missing", "warns", "open"]
_SIGNS: dict[State, tuple[str, str]] = {
    "done": ("✓", "$success"),
    "missing": ("✗", "$error"),
    "warns": ("!", "$warning"),
    "open": ("·", MUTED),
}


class Stepper(Widget):
    """One line; a click on a step goes there."""

    DEFAULT_CSS = """
    Stepper { height: 1; background: $panel; }
    """

    @dataclass
    class Chosen(Message):
        index: int

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.states: list[State] = ["open"] * len(names)
        self.counts: dict[int, int] = {}
        self.current = 0

    def show(self, current: int, states: list[State], counts: dict[int, int] | None = None) -> None:
        """Redraw, where something changed; `counts` says of how many findings a step tells."""
        now = current, states, counts or {}
        if now != (self.current, self.states, self.counts):
            self.current, self.states, self.counts = now
            self.refresh()

    def _labels(self) -> list[str]:
        """Names where they fit, else numbers for all but the open step."""
        names = [f"{name} ({self.counts[index]})" if self.counts.get(index) else name for index, name in enumerate(self.names)]
        full = [f"{index + 1} {name}" for index, name in enumerate(names)]
        for labels in (full, names, [label if i == self.current else str(i + 1) for i, label in enumerate(full)]):
            if sum(len(label) + 4 for label in labels) <= self.size.width:
                return labels
        return labels

    def render(self) -> Content:
        parts = []
        for index, (label, state) in enumerate(zip(self._labels(), self.states, strict=True)):
            sign, colour = _SIGNS[state]
            if index == self.current:
                parts.append(Content.styled(f" {sign} {label} ", "bold $background on $primary"))
            else:
                parts.append(Content.assemble((f" {sign} ", colour), (f"{label} ", "$foreground")))
        return Content("").join(parts)

    def on_click(self, event: events.Click) -> None:
        at = 0
        for index, label in enumerate(self._labels()):
            at += len(label) + 4
            if event.x < at:
                self.post_message(self.Chosen(index))
                return
