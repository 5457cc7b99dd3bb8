"""Small questions over a screen: yes or no (no is the default), and one value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Static

from tui_ft.tui.screen import Modal
from tui_ft.tui.text import content


class Confirm(Modal[bool]):
    """Asks before something that cannot be taken back. Enter, escape and n say no; only y or the other button says yes."""

    CSS_PATH = Path(__file__).with_name("confirm.tcss")
    BINDINGS = [  # noqa: RUF012
        Binding("y", "answer(True)", "Yes"),
        Binding("n,q,escape", "answer(False)", "No"),
        Binding("left,right", "other", "Other", show=False),
    ]

    def __init__(self, question: str, detail: str = "", yes: str = "Yes", no: str = "No") -> None:
        """
        Args:
            question: one sentence; may hold foreign text.
            detail: what it costs, what stays.
            yes, no: the buttons' words, of our own.
        """
        super().__init__()
        self.question, self.detail, self.yes, self.no = question, detail, yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(content(self.question, "bold"), classes="question")
            if self.detail:
                yield Static(content(self.detail), classes="detail")
            with Horizontal(classes="answers"):
                yield Button(content(f"{self.no} (n)"), id="no", compact=True)
                yield Button(content(f"{self.yes} (y)"), id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)

    def action_other(self) -> None:
        self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class Prompt(Modal[str | None]):
    """Asks for one value; None when it was left."""

    CSS_PATH = Path(__file__).with_name("confirm.tcss")
    BINDINGS = [Binding("escape", "dismiss(None)", "Leave")]  # noqa: RUF012

    def __init__(self, question: str, value: str = "", detail: str = "", problem: Callable[[str], str] = lambda _: "") -> None:
        """
        Args:
            question: what is asked for.
            value: what the field holds at first.
            detail: a sentence on what it does.
            problem: what is wrong with a value, in words; empty when nothing is.
        """
        super().__init__()
        self.question, self.value, self.detail, self.problem = question, value, detail, problem

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(content(self.question, "bold"), classes="question")
            if self.detail:
                yield Static(content(self.detail), classes="detail")
            yield Input(self.value, compact=True)
            yield Static("", classes="problem")
            yield Static("enter accepts · esc leaves", classes="dim")

    @on(Input.Changed)
    def _clear(self) -> None:
        self.query_one(".problem", Static).update("")

    @on(Input.Submitted)
    def _accept(self, event: Input.Submitted) -> None:
        wrong = self.problem(event.value.strip())
        if wrong:
            self.query_one(".problem", Static).update(content(wrong))
        else:
            self.dismiss(event.value.strip())
