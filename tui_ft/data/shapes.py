"""Conversations of one shape (the same roles and keys) differ only in their words: what is learned of one tells it of all.

A shape's skeleton is the text that the template writes around the words, with the places where answers start and stop, found once by
`mask.answers` on stand-ins. Nothing is guessed: a conversation's own rendering must be the skeleton with its words in it, to the letter;
then each place is known. Any other conversation takes the slow road.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tui_ft.data import mask
from tui_ft.data.conversations import BadRow
from tui_ft.data.marks import Span
from tui_ft.data.rendering import Message, Renderer, one_of, render_errors

_STAND_INS = 0xE000  # private use of the basic plane; marks take other planes
_MOST_SLOTS, _MOST_SHAPES = 1000, 4096
_EDGE = "\n \n"  # white space that shows what a template trims: all of it, line ends only, one side
_TRIMS: tuple[Callable[[str], str], ...] = (
    str,
    str.strip,
    str.rstrip,
    str.lstrip,
    lambda text: text.strip("\n"),
    lambda text: text.lstrip("\n"),
    lambda text: text.rstrip("\n"),
)

Slot = tuple[int, str]
"""A text of a conversation: the message's number and key."""
Place = tuple[int, int]
"""A place in a skeleton: the literal's number, and the character in it."""


@dataclass(frozen=True)
class Skeleton:
    literals: tuple[str, ...]
    """What the template writes: before, between and after the slots."""
    slots: tuple[Slot, ...]
    trims: tuple[Callable[[str], str], ...]
    """What it does to each slot's text."""
    spans: tuple[tuple[Place, Place], ...]

    def fill(self, messages: Sequence[Message], text: str) -> list[Span] | None:
        """The answers' spans in `text`; None where it is not this skeleton with the messages' words in it."""
        parts, starts, length = [self.literals[0]], [0], len(self.literals[0])
        for (number, key), trim, literal in zip(self.slots, self.trims, self.literals[1:], strict=True):
            words = trim(messages[number][key])
            parts += [words, literal]
            starts.append(length + len(words))
            length += len(words) + len(literal)
        if length != len(text) or "".join(parts) != text:
            return None
        return [(starts[first] + start, starts[last] + stop) for (first, start), (last, stop) in self.spans]


class Shapes:
    """The skeletons of one template, made as conversations come."""

    def __init__(self, renderer: Renderer, stops: Collection[str], special: Collection[str]) -> None:
        self._renderer, self._stops, self._special = renderer, stops, special
        self._known: dict[Any, Skeleton | None] = {}

    def answers(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> tuple[str, list[Span]]:
        """As `mask.answers`, for one rendering instead of several where the skeleton fits."""
        skeleton = None if tools else self._skeleton(messages)
        if skeleton:
            text = self._renderer.render(messages)
            spans = skeleton.fill(messages, text)
            if spans is not None:
                return text, spans
        return mask.answers(self._renderer, messages, tools, self._stops, self._special)

    def _skeleton(self, messages: Sequence[Message]) -> Skeleton | None:
        shape = tuple((message["role"], *((key, not _is_blank(value)) for key, value in message.items() if key != "role")) for message in messages)
        if shape not in self._known:
            if len(self._known) >= _MOST_SHAPES:
                self._known.clear()
            self._known[shape] = self._learn(messages)
        return self._known[shape]

    def _learn(self, messages: Sequence[Message]) -> Skeleton | None:
        slots = [(number, key) for number, message in enumerate(messages) for key in message if key != "role" and not _is_blank(message[key])]
        if len(slots) > _MOST_SLOTS or not all(isinstance(value, str) for message in messages for value in message.values()):
            return None  # a tool call has a shape of its own
        names = {slot: chr(_STAND_INS + index) for index, slot in enumerate(slots)}
        plain, edged = _with_stand_ins(messages, names, ""), _with_stand_ins(messages, names, _EDGE)
        try:
            text, spans = mask.answers(self._renderer, plain, (), self._stops, self._special)
            padded = self._renderer.render(edged)
        except (BadRow, *render_errors()):  # type: ignore[misc]
            return None
        pattern = one_of(names.values())
        literals = tuple(pattern.split(text))
        shown = tuple(slots[ord(name) - _STAND_INS] for name in pattern.findall(text))
        trims = _trims(literals, [_EDGE + names[slot] + _EDGE for slot in shown], padded)
        ends = [found.end() for found in pattern.finditer(text)]

        def place(char: int) -> Place | None:
            literal = sum(end <= char for end in ends)
            start = ends[literal - 1] if literal else 0
            return (literal, char - start) if char - start <= len(literals[literal]) else None

        places = [(place(start), place(stop)) for start, stop in spans]
        return Skeleton(literals, shown, trims, places) if trims is not None else None  # type: ignore[arg-type]


def _with_stand_ins(messages: Sequence[Message], names: Mapping[Slot, str], edge: str) -> list[dict[str, Any]]:
    return [
        {key: edge + names[number, key] + edge if (number, key) in names else value if key == "role" else "" for key, value in message.items()}
        for number, message in enumerate(messages)
    ]


def _is_blank(value: Any) -> bool:
    return not value.strip() if isinstance(value, str) else value is None


def _trims(literals: Sequence[str], edged: Sequence[str], padded: str) -> tuple[Callable[[str], str], ...] | None:
    """What was done to each slot, read off the rendering with white space around every word; None where it is none of ours."""
    found: list[Callable[[str], str]] = []
    if not padded.startswith(literals[0]):
        return None
    place = len(literals[0])
    for words, literal in zip(edged, literals[1:], strict=True):
        trim = next((trim for trim in _TRIMS if padded.startswith(trim(words) + literal, place)), None)
        if trim is None:
            return None
        found.append(trim)
        place += len(trim(words) + literal)
    return tuple(found) if place == len(padded) else None
