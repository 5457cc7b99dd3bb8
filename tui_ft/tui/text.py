"""The one road by which foreign text reaches a widget: never as markup, never with a control character in it.

Textual parses `[…]` in plain strings as markup, and `[/INST]` in a file name then ends the app: what a model, a dataset, a log
or a path says goes through here. Text of our own may be given to widgets as it is.
"""

from __future__ import annotations

from rich.text import Text
from textual.content import Content
from textual.style import Style

from tui_ft import text

MUTED = "$foreground 60%"
"""Less important text. (`$text-muted` depends on its background, which Content does not know: it comes out white.)"""


def content(foreign: object, style: str | Style = "") -> Content:
    """Foreign text of several lines, for Static, Label, Button, OptionList, border titles."""
    return Content.styled(text.visible(foreign).expandtabs(4), style) if style else Content(text.visible(foreign).expandtabs(4))


def line(foreign: object, width: int = 0, style: str | Style = "") -> Content:
    """Foreign text on one line, cut to `width` cells (0: not cut)."""
    plain = text.one_line(foreign, width)
    return Content.styled(plain, style) if style else Content(plain)


def cell(foreign: object, width: int = 0, style: str = "", justify: str = "default") -> Text:
    """Foreign text on one line as a rich Text, for cells of a DataTable and labels of a Tree."""
    return Text(text.one_line(foreign, width), style=style, justify=justify, no_wrap=True, end="")  # type: ignore[arg-type]
