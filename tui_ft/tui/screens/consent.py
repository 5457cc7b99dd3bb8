"""The question whether a model's own Python code may run: which repository, which commit, which files, where to read them."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Static

from tui_ft import units
from tui_ft.hub.code import RemoteCode
from tui_ft.tui import keys
from tui_ft.tui.screen import Modal
from tui_ft.tui.text import MUTED, line


class CodeConsent(Modal[bool]):
    """No is the default: enter, escape and n say it; only y and the other button consent. Given for one run, kept nowhere else."""

    CSS_PATH = Path(__file__).with_name("hub.tcss")
    GROUP = "consent"
    BINDINGS = keys.bindings("consent")  # type: ignore[assignment]

    def __init__(self, code: RemoteCode) -> None:
        super().__init__()
        self.code = code

    def compose(self) -> ComposeResult:
        with Vertical(classes="hub -small") as box:
            box.border_title = "This model brings its own Python code"
            yield Static("Run it on this machine, with all that your account may do?", classes="question")
            yield Static(_which(self.code), id="consent-which")
            with VerticalScroll(id="consent-files"):
                yield Static(_files(self.code))
            with Horizontal(classes="answers"):
                yield Button("No (n)", id="no", compact=True)
                yield Button("I have read it, run it (y)", id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "yes")


def _which(code: RemoteCode) -> Content:
    rows = [
        Content.assemble(("repository  ", MUTED), line(code.repository, style="bold")),
        Content.assemble(("commit      ", MUTED), line(code.commit, style="bold")),
        Content.assemble(("read it at  ", MUTED), line(code.address)),
        Content.styled("Only this commit is run: what is changed there later is not.", MUTED),
    ]
    return Content("\n").join(rows)


def _files(code: RemoteCode) -> Content:
    return Content("\n").join([Content.assemble(line(file.name, 50), (f"  {units.size(file.bytes)}", MUTED)) for file in code.files])
