"""Lists that answer to j, k, g and G besides the arrow keys, and can be narrowed to what holds a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from textual.binding import Binding
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui_ft.tui import keys
from tui_ft.tui.widgets.narrowing import Narrowing

Orders = Mapping[str, Mapping[str, Any]]
"""By the name of an order, for each option's id what to sort by."""


class Options(OptionList):
    """An option list with the keys of vi; prompts are always `Content`, never markup."""

    BINDINGS = keys.bindings("list")  # type: ignore[assignment]

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes, markup=False, compact=True)
        self.needle = ""
        """Only options that hold this text are shown, in whatever case; what comes later is narrowed as well."""
        self.offered: list[Option] = []
        """All options as they came, those too that are not shown."""
        self.orders: Orders = {}
        self.order = ""

    def offer(self, options: Iterable[Option], orders: Orders | None = None) -> None:
        """Take these in place of all others; the cursor stays on its option.

        `orders` are the ways to sort them besides as they come: by name, for each option's id what to sort by. Options without come last.
        """
        selected = self.selected
        self.offered = list(options)
        self.orders = orders or {}
        fitting = [option for option in self._sorted() if self.needle in plain(option).casefold()]
        self.set_options(fitting or ([Option(Content.styled("nothing holds it", "$foreground 60%"), disabled=True)] if self.needle else []))
        self.highlight(selected)

    def narrow(self, text: str) -> None:
        """Show only what holds a text; all for an empty one."""
        self.needle = text.strip().casefold()
        self.offer(self.offered, self.orders)

    def sort(self) -> str:
        """Go to the next order; its name, empty for as they came."""
        names = ["", *self.orders]
        self.order = names[(names.index(self.order) + 1) % len(names)] if self.order in names else ""
        self.offer(self.offered, self.orders)
        return self.order

    def _sorted(self) -> list[Option]:
        places = self.orders.get(self.order)
        if places is None:
            return self.offered
        known = [option for option in self.offered if option.id in places]
        return sorted(known, key=lambda option: places[str(option.id)]) + [option for option in self.offered if option.id not in places]

    @property
    def selected(self) -> str | None:
        """The id of the highlighted option; None where nothing is highlighted."""
        return self.get_option_at_index(self.highlighted).id if self.highlighted is not None else None

    def highlight(self, option_id: str | None) -> None:
        """Put the cursor on an option, or on the first one where there is none of that id."""
        ids = [option.id for option in self.options]
        first = next((index for index, option in enumerate(self.options) if not option.disabled), None)
        self.highlighted = ids.index(option_id) if option_id is not None and option_id in ids else first


def by_name_and_size(sizes: Mapping[str, int | None]) -> Orders:
    """The orders of files and repositories by their bytes, the largest first."""
    return {"name": {name: name.casefold() for name in sizes}, "size": {name: -(size or 0) for name, size in sizes.items()}}


def plain(option: Option) -> str:
    """What an option says."""
    return option.prompt.plain if isinstance(option.prompt, Content) else str(option.prompt)


class Narrowed(Narrowing):
    """A list that can be narrowed and sorted."""

    BINDINGS = keys.bindings("narrowed")  # type: ignore[assignment]

    def __init__(self, options: Options) -> None:
        super().__init__(options, "only what holds …")
        self.options = options

    def narrow(self, text: str) -> None:
        self.options.narrow(text)

    def action_narrow(self) -> None:
        self.ask()

    def action_sort(self) -> None:
        if self.options.orders:
            self.notify(f"by {self.options.sort() or 'their own order'}", timeout=2)


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
