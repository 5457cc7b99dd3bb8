"""The one road for foreign text: what models, datasets, logs and file names say is hostile until it passed here.

A terminal obeys escape sequences (clipboard, title, colours, cursor) and reorders text at bidirectional
controls; both are made visible instead of being removed, so that a person sees that they were there.
"""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 without tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u2028\u2029\ufff9-\ufffb"  # line and paragraph separators, interlinear annotation
    "\ud800-\udfff"  # lone surrogates, which cannot be encoded
    "\U000e0000-\U000e007f]"  # tag characters: invisible text
)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the Unicode control pictures: ␛ for ESC
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def visible(text: object) -> str:
    """`text` with every control character made visible; tabs and newlines stay."""
    return _CONTROL.sub(_picture, str(text).replace("\r\n", "\n"))


def one_line(text: object, width: int = 0) -> str:
    """`visible(text)` on one line, cut to `width` terminal cells with an ellipsis (0: not cut)."""
    line = visible(text).replace("\n", "⏎").replace("\t", " ")
    if not width:
        return line
    cells = 0
    for index, char in enumerate(line):
        cells += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if cells > width:
            return line[: max(0, index - 1)] + "…"
    return line
