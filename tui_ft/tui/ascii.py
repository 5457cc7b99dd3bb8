"""Everything in ASCII, for terminals and fonts that have no more: each cell keeps its width, so that no screen changes its shape."""

from __future__ import annotations

import re
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_PAIRS = {
    "-": "─╌┄–—‒", "|": "│┃▏▎▍▌▐┆║‖", "+": "┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝✓±", "#": "█▇▆▅▓▉▊▋■", "=": "▄▃━╸╺═", "_": "▂▁", "^": "▀↑⏎", ".": "·░…", ":": "▒",
    "x": "✗×", "*": "●★◆•⠿", "o": "○◌", ">": "▶→❱›≥", "<": "◀←‹≤", "v": "▼↓", "'": "’‘", '"': "“”", "[": "⟦", "]": "⟧", " ": "\u2800\u00a0",
}  # fmt: skip
"""The sign that stands for others."""
_TABLE = str.maketrans({char: sign for sign, chars in _PAIRS.items() for char in chars})
_OTHERS = re.compile(r"[^\x00-\x7f]")


@lru_cache(4096)
def plain(text: str) -> str:
    """`text` of the same width in ASCII; letters that ASCII lacks become question marks."""
    return _OTHERS.sub(lambda match: "?" * cell_len(match[0]), text.translate(_TABLE))


class OnlyAscii(LineFilter):
    """Goes over every line before it is written."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [segment if segment.text.isascii() else Segment(plain(segment.text), segment.style, segment.control) for segment in segments]
