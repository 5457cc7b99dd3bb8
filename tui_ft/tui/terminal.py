"""What is said to the terminal itself: its title, a bell, a notification. Only to a real one, and never with a control character of others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tui_ft import text

TITLE_CELLS = 60
_PLAIN = ("linux", "dumb", "vt100", "vt220")
"""Terminals that have no title and may print what sets one."""


only_ascii = False
"""Set from the settings, once, before the first screen: nothing but ASCII is written."""


def knows_unicode() -> bool:
    """Whether what is written reaches the terminal as UTF-8."""
    encoding = getattr(sys.__stderr__, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").replace("_", "") in ("utf8", "utf16", "utf32")


def is_still(motion: str) -> bool:
    """Whether nothing shall move by itself: asked for, or over SSH, where each frame of an animation crosses the line."""
    return motion == "none" or (motion == "auto" and bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY")))


def has_title() -> bool:
    return sys.__stderr__ is not None and sys.__stderr__.isatty() and os.environ.get("TERM", "") not in _PLAIN


@contextmanager
def own_title() -> Iterator[None]:
    """The title is the program's while it lasts, and then what it was, where the terminal can remember it."""
    stream = sys.__stderr__ if has_title() else None  # where the library writes the screen
    if stream is not None:
        stream.write("\x1b[22;0t")
        stream.flush()
    try:
        yield
    finally:
        if stream is not None:
            stream.write("\x1b[23;0t")
            stream.flush()


def title(words: str) -> str:
    """The sequence that sets the title."""
    return f"\x1b]2;{text.one_line(words, TITLE_CELLS)}\x07"


def notification(words: str) -> str:
    """The sequence that iTerm2, kitty, WezTerm, Windows Terminal and others show as a notification; the rest, tmux too, swallow it."""
    return f"\x1b]9;{text.one_line(words, TITLE_CELLS)}\x07"
