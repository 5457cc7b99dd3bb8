"""Where each message's texts stand in the rendering: they are rendered once more with private characters around them.

The marked rendering counts only if it is the plain one but for its marks, to the letter: then a mark's place is a fact about the text, whatever
the template does. Marks stand within leading and trailing white space, so that templates which trim do what they always do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tui_ft.data.conversations import BadRow
from tui_ft.data.rendering import Message, Renderer, render_errors

Span = tuple[int, int]
"""Characters, start included, end excluded."""

REMEDY = "use prompt.template chatml, or prompt.learn all"
"""What helps where a template does not let answers be told from the rest."""
_PLANES = (0xF0000, 0x100000)  # Unicode's two private planes; a text that uses the one is marked with the other
_KINDS = 6  # marks of a message
_ROOM = 0xFFFE // _KINDS  # messages that can be told apart
_CONTENT, _CALL, _OTHER = 0, 2, 4  # opening marks, around its content, texts of its tool calls, and all others; the closing one is the next
_MARK_OF = {"content": _CONTENT, "tool_calls": _CALL}
_UNMARKED = frozenset({"role", "type", "id", "tool_call_id", "name"})  # what templates compare or count, and never the answer


@dataclass
class Places:
    """Where the texts of one message stand in the rendering."""

    opens: list[int] = field(default_factory=list)
    """Where its content starts: none where the template drops the start, several where it writes the content again."""
    closes: list[int] = field(default_factory=list)
    calls: list[Span] = field(default_factory=list)
    """The texts of its tool calls: names and arguments."""
    others: list[Span] = field(default_factory=list)
    """Its further texts: thinking, an input of its own."""

    @property
    def spans(self) -> list[Span]:
        """All of them; one of content whose other end is unknown is empty."""
        whole = len(self.opens) == len(self.closes) == 1
        content = [(min(self.opens + self.closes), max(self.opens + self.closes))] if whole else [(at, at) for at in (*self.opens, *self.closes)]
        return [*content, *self.calls, *self.others]


@dataclass(frozen=True)
class Marked:
    """A rendering whose texts have known places."""

    text: str
    bare: str
    """`text` with every marked text blanked out by NUL: what is left was written by the template."""
    places: Mapping[int, Places]
    """By the message's number; only the messages that were marked."""

    def neighbours(self, message: int, place: int) -> Span:
        """The closest places of texts of other messages before and after `place`, else the ends of the text."""
        before, after = 0, len(self.text)
        for number, places in self.places.items():
            if number != message:
                for start, end in places.spans:
                    before = max(before, end) if end <= place else before
                    after = min(after, start) if start >= place else after
        return before, after


def marked(renderer: Renderer, messages: Sequence[Message], tools: Sequence[dict[str, Any]], text: str, answers: Collection[int]) -> Marked:
    """The places of all messages' texts in `text`, else of the answers' alone: a template may act on how a question begins.

    Raises:
        BadRow: the template writes other text when an answer is marked, such as its length or its first letter in upper case.
    """
    plane = next((plane for plane in _PLANES if not re.search(f"[{chr(plane)}-{chr(plane + 0xFFFD)}]", text)), None)
    if plane is None or len(messages) > _ROOM:
        raise BadRow("its private-use characters leave none to find the answers by")
    for chosen in (range(len(messages)), answers):
        found = _read(renderer, [_mark(m, plane + _KINDS * n) if n in chosen else m for n, m in enumerate(messages)], tools, plane)
        if found and found.text == text:
            return found
    raise BadRow(f"the template's text changes with the words of an answer; {REMEDY}")


def map_texts(value: Any, change: Callable[[str], str], *, free: bool = False) -> Any:
    """A tool call or the like with each text in it changed; in its arguments (`free`) their names too, elsewhere not what templates look up."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping) and free:
        return {change(key): map_texts(item, change, free=True) for key, item in value.items()}
    if isinstance(value, Mapping):
        fixed = _UNMARKED - {"name"} if "arguments" in value else _UNMARKED
        return {key: item if key in fixed else map_texts(item, change, free=key == "arguments") for key, item in value.items()}
    return [map_texts(item, change, free=free) for item in value] if isinstance(value, list | tuple) else value


def _mark(message: Message, base: int) -> dict[str, Any]:
    def around(kind: int) -> Callable[[str], str]:
        return lambda text: _around(text, chr(base + kind), chr(base + kind + 1))

    return {key: value if key in _UNMARKED else map_texts(value, around(_MARK_OF.get(key, _OTHER))) for key, value in message.items()}


def _around(text: str, opening: str, closing: str) -> str:
    core = text.strip()
    if not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{opening}{core}{closing}{text[start + len(core) :]}"


def _read(renderer: Renderer, messages: Sequence[Message], tools: Sequence[dict[str, Any]], plane: int) -> Marked | None:
    try:
        rendered = renderer.render(messages, tools)
    except render_errors():  # it counts or compares what is marked
        return None
    parts = re.split(f"([{chr(plane)}-{chr(plane + 0xFFFD)}])", rendered)
    places: dict[int, Places] = {}
    opened: dict[int, int] = {}
    blanks: list[Span] = []
    length = 0
    for index, part in enumerate(parts):
        if index % 2 == 0:
            length += len(part)
            continue
        message, kind = divmod(ord(part) - plane, _KINDS)
        at = places.setdefault(message, Places())
        if kind % 2 == 0:
            opened[ord(part)] = length
        elif (start := opened.pop(ord(part) - 1, None)) is not None:
            blanks.append((start, length))
            if kind > _CONTENT + 1:
                (at.calls if kind == _CALL + 1 else at.others).append((start, length))
        if kind == _CONTENT:
            at.opens.append(length)
        elif kind == _CONTENT + 1:
            at.closes.append(length)
    text = "".join(parts[::2])
    bare = list(text)
    for start, end in blanks:
        bare[start:end] = "\0" * (end - start)
    return Marked(text, "".join(bare), places)
