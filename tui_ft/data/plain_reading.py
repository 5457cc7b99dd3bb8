"""Control tokens that a message merely spells: read as the characters they are, never as the token.

A `</s>` or `<|im_end|>` in a question would end the turn, or begin another one, in somebody else's words. Here such a text is read by a copy
of the tokenizer that knows its control tokens by private-use characters instead of their names: what the template wrote is given by these,
and names that are left are ordinary text. All else is the tokenizer's own doing, white space and prefixes included.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from tui_ft.data.conversations import ASSISTANT, BadRow
from tui_ft.data.marks import Span, marked
from tui_ft.data.rendering import Message, Renderer, one_of, render_errors

_NAMES = 0xF0000  # private use; a text is never shown with them
_BREAKS = "\ue000\ue001\ue002"


@dataclass(frozen=True)
class Reading:
    """Tokens with their characters, as `tokenizers.Encoding` has them."""

    ids: list[int]
    offsets: list[Span]

    def __len__(self) -> int:
        return len(self.ids)

    def char_to_token(self, char: int) -> int | None:
        """The first token that holds the character."""
        index = bisect_right(self.offsets, char, key=lambda span: span[1])
        return index if index < len(self.ids) and self.offsets[index][0] <= char else None

    def token_to_chars(self, token: int) -> Span:
        return self.offsets[token]


def spelled(
    renderer: Renderer, messages: Sequence[Message], tools: Sequence[dict[str, Any]], text: str, control: re.Pattern[str], answer: re.Pattern[str]
) -> list[Span]:
    """Where the rendering holds control tokens that messages or tools spell, in order; nothing is rendered where none does.

    Args:
        control: the tokens that no question, tool or system text may become.
        answer: those that no answer may become. Fewer: an answer can hold a call in the model's own control tokens, or its thinking.

    Raises:
        BadRow: the template acts on such a token, so that its own cannot be told from it.
    """
    if not any(_spells(message, answer if message["role"] == ASSISTANT else control) for message in messages) and not _holds(tools, control):
        return []
    plane = next((mark for mark in _BREAKS if mark not in text), "")
    broken = [_each_text(message, _breaker(answer if message["role"] == ASSISTANT else control, plane)) for message in messages]
    try:
        parts = renderer.render(broken, _each_text(list(tools), _breaker(control, plane))).split(plane) if plane else []
    except render_errors():
        parts = []
    if "".join(parts) == text:
        places = list(accumulate(len(part) for part in parts[:-1]))
        return [found.span() for place in places if (found := control.match(text, place - 1))]
    shown = marked(renderer, messages, tools, text, ())
    if len(shown.places) < sum(bool(message["content"].strip()) for message in messages):
        raise BadRow("the template acts on a control token that a message spells; leave it out")
    return [match.span() for match in control.finditer(text) if shown.bare[match.start() : match.end()] != match[0]]


def _spells(message: Message, pattern: re.Pattern[str]) -> bool:
    """Most messages have nothing but a role and a content: this is asked of every message of a dataset."""
    return pattern.search(message["content"]) is not None or (len(message) > 2 and _holds(message, pattern))


def _holds(value: Any, pattern: re.Pattern[str]) -> bool:
    if isinstance(value, str):
        return pattern.search(value) is not None
    if isinstance(value, Mapping):
        return any(_holds(item, pattern) for pair in value.items() for item in pair)
    return any(_holds(item, pattern) for item in value) if isinstance(value, list | tuple) else False


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_each_text(key, change): _each_text(item, change) for key, item in value.items()}
    return [_each_text(item, change) for item in value] if isinstance(value, list | tuple) else value


def _breaker(pattern: re.Pattern[str], mark: str) -> Callable[[str], str]:
    """Puts the mark behind the first character of each match: there it stays, however the template cuts and trims."""
    return lambda text: pattern.sub(lambda found: found[0][0] + mark + found[0][1:], text)


class PlainReader:
    """Reads texts some of whose control tokens are meant as text.

    Cost: a copy of the tokenizer, made when the first such text comes: about two seconds for 128 000 tokens.
    """

    def __init__(self, tokenizer: Any, control: Collection[str]) -> None:
        self._tokenizer = tokenizer
        self._names = {token: chr(_NAMES + index) for index, token in enumerate(sorted(control))}
        self._control = one_of(control)

    def read(self, text: str, literals: Sequence[Span]) -> Reading:
        """The tokens of `text`, in which the control tokens at `literals`, given in order, are text.

        Raises:
            BadRow: the text uses the private-use characters by which this works.
        """
        if re.search(f"[{chr(_NAMES)}-{chr(_NAMES + 0xFFFD)}]", text):
            raise BadRow("it has private-use characters beside the name of a control token")
        stops = [stop for _, stop in literals]
        parts: list[str] = []
        origins: list[int] = []  # for each character given to the copy, where it stands in the text
        place = 0
        for found in self._control.finditer(text):
            index = bisect_right(stops, found.start())
            if index == len(literals) or found.end() <= literals[index][0]:
                parts += [text[place : found.start()], self._names[found[0]]]
                origins += range(place, found.start() + 1)
                place = found.end()
        parts.append(text[place:])
        origins += range(place, len(text) + 1)
        encoding = self._copy.encode("".join(parts), add_special_tokens=False)
        ends = [*origins[1:], len(text)]
        return Reading(encoding.ids, [(origins[start], ends[end - 1] if end > start else origins[start]) for start, end in encoding.offsets])

    @cached_property
    def _copy(self) -> Any:
        from tokenizers import Tokenizer

        parts = json.loads(self._tokenizer.backend_tokenizer.to_str())
        parts["truncation"] = parts["padding"] = None
        for token in parts["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        model = parts["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._names.get(token, token): number for token, number in model["vocab"].items()}
        else:
            model["vocab"] = [[self._names.get(token, token), score] for token, score in model["vocab"]]
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = self._names.get(model["unk_token"], model["unk_token"])
        if "merges" in model:  # none may make a control token, or be made of one
            model["merges"] = [merge for merge in model["merges"] if not self._touches_control(merge)]
        return Tokenizer.from_str(json.dumps(parts))

    def _touches_control(self, merge: Any) -> bool:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        return left in self._names or right in self._names or left + right in self._names
