"""One key of the recipe on a form: its label, what is typed or chosen, and under it what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.suggester import Suggester, SuggestFromList
from textual.widgets import Input, Label, Select, Static

from tui_ft.tui import fields
from tui_ft.tui.text import line
from tui_ft.tui.widgets.choice import Choice

_FEW = 7
"""Up to so many words stand side by side; more make a menu."""


class Field(Vertical):
    """Posts `Edited` at each keystroke, `Committed` when the person leaves it or chooses, `Done` at enter."""

    DEFAULT_CSS = """
    Field { height: auto; }
    Field > Horizontal { height: 1; }
    Field Label { width: 18; color: $text-muted; }
    Field:focus-within Label { color: $foreground; text-style: bold; }
    Field Choice { width: 1fr; height: 1; padding: 0 1; }
    Field Choice:focus { background: $primary 18%; }
    Field Input.-textual-compact { width: 1fr; height: 1; padding: 0 1; background: $panel; }
    Field Input.-textual-compact:focus { background: $primary 18%; }
    Field Select { width: 1fr; height: 1; }
    Field Select.-textual-compact > SelectCurrent { background: $panel; padding: 0 1; }
    Field Select.-textual-compact:focus > SelectCurrent { background: $primary 18%; background-tint: $foreground 0%; }
    Field .field-resolved { display: none; width: auto; padding: 0 1; color: $text-muted; }
    Field.-resolved .field-resolved { display: block; }
    Field .field-problem { display: none; padding-left: 18; color: $text-error; }
    Field.-wrong .field-problem { display: block; }
    Field.-wrong Label { color: $text-error; }
    """

    @dataclass
    class Edited(Message):
        field: Field
        text: str

    @dataclass
    class Committed(Message):
        field: Field

    @dataclass
    class Done(Message):
        field: Field

    def __init__(self, key: str, text: str, placeholder: str = "", suggester: Suggester | None = None) -> None:
        super().__init__(id="field-" + key.replace(".", "-"))
        self.key = key
        self.spec = fields.spec(key)
        self._text = text
        self._resolved = ""
        self._placeholder = placeholder or ("auto" if "auto" in self.spec.choices else "")
        words = [word for word in self.spec.choices if word not in ("true", "false")]
        self._suggester = suggester or (SuggestFromList(words, case_sensitive=False) if words else None)

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label(self.spec.label)
            yield self._control()
            yield Static(classes="field-resolved", markup=False)
        yield Static(classes="field-problem", markup=False)

    def _control(self) -> Input | Select[str] | Choice:
        if not self.spec.closed:
            return Input(self._text, placeholder=self._placeholder, suggester=self._suggester, compact=True, select_on_focus=False)
        if len(self.spec.choices) <= _FEW:
            return Choice(self.spec.choices, self._text)
        value = self._text if self._text in self.spec.choices else Select.NULL
        return Select([(word, word) for word in self.spec.choices], value=value, allow_blank=value is Select.NULL, compact=True)

    @property
    def control(self) -> Input | Select[str] | Choice:
        return self.query_one("Input, Select, Choice")  # type: ignore[return-value]

    @property
    def text(self) -> str:
        """What stands in it now."""
        value = self.control.value
        return "" if value is Select.NULL else str(value)

    def show(self, text: str) -> None:
        """Put another text in, without it counting as an edit of the person."""
        control = self.control
        if self.text == text:
            return
        with self.prevent(Input.Changed, Select.Changed, Choice.Changed):
            if isinstance(control, Select):
                if text in self.spec.choices:
                    control.value = text
            else:
                control.value = text

    def complain(self, problem: str) -> None:
        """Say what is wrong under the field; nothing to say clears it."""
        self.set_class(bool(problem), "-wrong")
        self.query_one(".field-problem", Static).update(line(f"✗ {problem}") if problem else "")

    def resolve(self, text: str) -> None:
        """Say beside it what `auto` stands for; nothing to say clears it."""
        if text != self._resolved:
            self._resolved = text
            self.set_class(bool(text), "-resolved")
            self.query_one(".field-resolved", Static).update(line(f"→ {text}"))

    @on(Input.Changed)
    @on(Choice.Changed)
    @on(Select.Changed)
    def _edited(self, event: Input.Changed | Choice.Changed | Select.Changed) -> None:
        event.stop()
        self.post_message(self.Edited(self, self.text))
        if not isinstance(event, Input.Changed):
            self.post_message(self.Committed(self))

    @on(Input.Submitted)
    @on(Choice.Submitted)
    def _submitted(self, event: Message) -> None:
        event.stop()
        self.post_message(self.Committed(self))
        self.post_message(self.Done(self))

    def on_descendant_blur(self, event: events.DescendantBlur) -> None:
        if isinstance(event.widget, Input):
            self.post_message(self.Committed(self))
