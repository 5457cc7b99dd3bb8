"""Lists that answer to j, k, g and G besides the arrow keys."""

from __future__ import annotations

from textual.binding import Binding
from textual.widgets import OptionList

from tui_ft.tui import keys


class Options(OptionList):
    """An option list with the keys of vi; prompts are always `Content`, never markup."""

    BINDINGS = keys.bindings("list")  # type: ignore[assignment]

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes, markup=False, compact=True)

    @property
    def selected(self) -> str | None:
        """The id of the highlighted option; None where nothing is highlighted."""
        return self.get_option_at_index(self.highlighted).id if self.highlighted is not None else None

    def highlight(self, option_id: str | None) -> None:
        """Put the cursor on an option, or on the first one where there is none of that id."""
        ids = [option.id for option in self.options]
        self.highlighted = ids.index(option_id) if option_id in ids else (0 if ids else None)


class ScreenOptions(Options, inherit_bindings=False):
    """Leaves enter to the screen, whose footer says what it does."""

    BINDINGS = [  # noqa: RUF012
        *keys.bindings("list"),
        Binding("down", "cursor_down", "Down", show=False),
        Binding("up", "cursor_up", "Up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("home", "first", "First", show=False),
        Binding("end", "last", "Last", show=False),
    ]
