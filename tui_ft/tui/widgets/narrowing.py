"""A field that narrows what stands below it, while one types."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Input


class Narrowing(Vertical):
    """A body and, while it is asked for, a field above it. Subclasses say what `narrow` does, and bind `all_lines` to a key of their group."""

    DEFAULT_CSS = """
    Narrowing { height: 1fr; }
    Narrowing > Input { height: 1; background: $panel; display: none; }
    """

    def __init__(self, body: Widget, hint: str, id: str | None = None) -> None:
        super().__init__(id=id)
        self._body = body
        self._hint = hint

    def compose(self) -> ComposeResult:
        yield Input(placeholder=self._hint, compact=True)
        yield self._body

    def narrow(self, text: str) -> None:
        """Show only what holds a text, in whatever case; all for an empty one."""
        raise NotImplementedError

    def ask(self) -> None:
        """Open the field."""
        self._field.display = True
        self._field.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape is the screen's while the field is not there."""
        return action != "all_lines" or self._field.display

    def action_all_lines(self) -> None:
        with self.prevent(Input.Changed):
            self._field.value = ""
        self._field.display = False
        self.narrow("")
        self._body.focus()

    @property
    def _field(self) -> Input:
        return self.query_one(Input)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.narrow(event.value)

    @on(Input.Submitted)
    def _found(self, event: Input.Submitted) -> None:
        event.stop()
        self._body.focus()
