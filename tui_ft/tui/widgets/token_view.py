"""One rendered sample, token by token: what is learned, which tokens are special, where one ends and the next begins.

Line API: a sample of a hundred thousand tokens is laid out once, and only the rows in sight are drawn.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui_ft.text import visible
from tui_ft.tui import keys

if TYPE_CHECKING:
    from tui_ft.data.preview import Token

OPEN, CLOSE, BETWEEN, LINE_END = "⟦", "⟧", "·", "⏎"
BADGES = {"bos": "BOS", "eos": "EOS", "end": "END", "pad": "PAD", "special": "SPECIAL"}
MOST_OF_A_TOKEN = 400
"""Characters shown of one: a word that a vocabulary does not know is one token, whatever its length."""

Piece = tuple[str, str]
"""Text on one line, harmless, and its component class without the common beginning."""


@dataclass
class Page:
    """A sample as rows of pieces, each row no wider than it was laid out for."""

    width: int
    rows: list[list[Piece]] = field(default_factory=lambda: [[]])
    found: int | None = None
    """The first row with a token that was searched for."""
    _room: int = 0

    def __post_init__(self) -> None:
        self._room = self.width

    def put(self, text: str, role: str) -> None:
        """Add a text, on the next row where it does not fit on this one; longer than a row, it is broken anywhere."""
        cells = cell_len(text)
        if cells > self._room and cells <= self.width:
            self.end_row()
        while cells > self._room:
            fitting = _fitting(text, self._room)
            if fitting:
                self.rows[-1].append((text[:fitting], role))
            elif self._room == self.width:
                return  # not even one character fits: there is nothing to see at this width
            text = text[fitting:]
            cells = cell_len(text)
            self.end_row()
        if text:
            self.rows[-1].append((text, role))
            self._room -= cells

    def end_row(self) -> None:
        self.rows.append([])
        self._room = self.width


def lay_out(tokens: Sequence[Token], width: int, found: Container[int] = (), boundaries: bool = False) -> Page:
    """Rows of `width` cells. Learned runs stand in brackets; `boundaries` sets a dot between two tokens, for where shades cannot tell them apart."""
    page = Page(width)
    inside = False
    for index, token in enumerate(tokens):
        if token.learned != inside:
            page.put(OPEN if token.learned else CLOSE, "mark")
            inside = token.learned
        elif boundaries and index:
            page.put(BETWEEN, "between")
        if token.kind:
            page.put(f"‹{BADGES.get(token.kind, BADGES['special'])}›", "badge")
        if index in found and page.found is None:
            page.found = len(page.rows) - 1
        role = "found" if index in found else f"{'learned' if token.learned else 'given'}-{'odd' if index % 2 else 'even'}"
        first, *following = _shown(token.text).split("\n")
        page.put(first, role)
        for part in following:
            page.end_row()
            page.put(part, role)
    if inside:
        page.put(CLOSE, "mark")
    return page


def _shown(text: str) -> str:
    """A token's characters: line breaks marked and kept, nothing invisible, never without end."""
    rest = f"…(+{len(text) - MOST_OF_A_TOKEN:,})" if len(text) > MOST_OF_A_TOKEN else ""
    return visible(text[:MOST_OF_A_TOKEN]).replace("\t", "⇥").replace("\n", f"{LINE_END}\n") + rest or "∅"


def _fitting(text: str, room: int) -> int:
    """How many characters of `text` fit into so many cells."""
    cells = 0
    for index, char in enumerate(text):
        cells += cell_len(char)
        if cells > room:
            return index
    return len(text)


class TokenView(ScrollView, can_focus=True, inherit_bindings=False):
    """Shows one sample; up and down scroll it, while left and right are free for going from sample to sample.

    Its scrollbar is always there: one that comes with the text would hide the last column that the text was laid out for.
    """

    BINDINGS = keys.bindings("reading")  # type: ignore[assignment]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"token-view--{role}" for role in ("given-even", "given-odd", "learned-even", "learned-odd", "mark", "badge", "between", "found")
    }
    DEFAULT_CSS = """
    TokenView { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; overflow-y: scroll; }
    TokenView > .token-view--given-even { color: $foreground 65%; background: $foreground 13%; }
    TokenView > .token-view--given-odd { color: $foreground 65%; background: $foreground 6%; }
    TokenView > .token-view--learned-even { color: $success; background: $foreground 13%; text-style: underline; }
    TokenView > .token-view--learned-odd { color: $success; background: $foreground 6%; text-style: underline; }
    TokenView > .token-view--mark { color: $success; text-style: bold; }
    TokenView > .token-view--badge { color: $background; background: $accent; text-style: bold; }
    TokenView > .token-view--between { color: $foreground 40%; }
    TokenView > .token-view--found { color: $background; background: $warning; text-style: bold underline; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.boundaries = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("linux", "vt100", "vt220", "screen")
        self._tokens: Sequence[Token] = ()
        self._found: Container[int] = ()
        self._page = Page(0)

    def show(self, tokens: Sequence[Token], found: Container[int] = ()) -> None:
        """Show a sample from its beginning, or from the first of the tokens in `found`."""
        self._tokens, self._found = tokens, found
        self._lay_out()
        self.scroll_to(y=max(0, (self._page.found or 0) - 2), animate=False)

    def rows_as_text(self) -> list[str]:
        """What is shown, without colours."""
        return ["".join(text for text, _ in row) for row in self._page.rows]

    def on_resize(self) -> None:
        if self._page.width != self._width:
            self._lay_out()

    @property
    def _width(self) -> int:
        return max(1, self.scrollable_content_region.width)

    def _lay_out(self) -> None:
        self._page = lay_out(self._tokens, self._width, self._found, self.boundaries)
        self.virtual_size = Size(self._page.width, len(self._page.rows))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        if row >= len(self._page.rows):
            return Strip.blank(self.size.width, self.rich_style)
        segments = [Segment(text, self.get_component_rich_style(f"token-view--{role}")) for text, role in self._page.rows[row]]
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)
