"""What is learned: the characters of each answer with its end, found in the template's own rendering.

No template is known by name. An answer starts where the rendering of the messages before it, with the prompt to answer, ends
(prefix difference). Where a template writes earlier turns otherwise once later ones follow (thinking that is removed, a system text that
moves), that prefix does not hold; then the answer is replaced by another text, and what changes is the answer.
"""

from __future__ import annotations

from typing import Any

from tui_ft.data import templates
from tui_ft.data.conversations import ASSISTANT
from tui_ft.data.templates import TurnEnds

Span = tuple[int, int]
"""Characters, start included, end excluded."""

_STAND_INS = ("Qx", "Zy", "Jw")


def answers(tokenizer: Any, messages: list[dict[str, Any]], ends: TurnEnds) -> tuple[str, list[Span]]:
    """The rendered conversation and the spans of its answers, each with its end of turn.

    Cost: one rendering, and one for each answer; two for each where the prefix does not hold.

    Raises:
        What Jinja raises where the template refuses the conversation.
    """
    text = templates.render(tokenizer, messages)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == ASSISTANT:
            span = _span(tokenizer, text, messages, index, ends)
            if span:
                spans.append(span)
    return text, spans


def _span(tokenizer: Any, text: str, messages: list[dict[str, Any]], index: int, ends: TurnEnds) -> Span | None:
    prompt = templates.render(tokenizer, messages[:index], add_generation_prompt=True) if index else ""
    start = len(prompt) if prompt and text.startswith(prompt) else None
    content = messages[index]["content"]
    if start is not None:
        first = len(text) - len(text[start:].lstrip())
        for shown in (content, content.strip()):
            place = start if text.startswith(shown, start) else first
            end = _end_of_turn(text, place + len(shown), ends)
            if shown and text.startswith(shown, place) and end is not None:
                return start, end
    changed = _changed(tokenizer, text, messages, index)
    if changed:
        stop = _end_of_turn(text, changed[1], ends)
        return (changed[0] if start is None else min(start, changed[0])), (changed[1] if stop is None else stop)
    return _whole_turn(tokenizer, text, messages, index, start, ends)


def _end_of_turn(text: str, start: int, ends: TurnEnds) -> int | None:
    for end in ends.texts:
        if text.startswith(end, start):
            return start + len(end)
    return None


def _changed(tokenizer: Any, text: str, messages: list[dict[str, Any]], index: int) -> Span | None:
    """The characters that change with the answer's content; None where the template does not show it."""
    content = messages[index]["content"].strip()
    if not content:
        return None
    other = next(text for text in _STAND_INS if text[0] != content[0] and text[-1] != content[-1])
    varied = templates.render(tokenizer, [*messages[:index], {**messages[index], "content": other}, *messages[index + 1 :]])
    start = _common_prefix(text, varied)
    if start == len(text) == len(varied):
        return None
    limit = min(len(text), len(varied)) - start
    return start, len(text) - min(_common_prefix(text[::-1], varied[::-1]), limit)


def _whole_turn(tokenizer: Any, text: str, messages: list[dict[str, Any]], index: int, start: int | None, ends: TurnEnds) -> Span | None:
    """A turn without text of its own, such as a call of a tool: all that its message adds to the rendering, up to its stop token."""
    if start is None:
        return None
    stop = _common_prefix(text, templates.render(tokenizer, messages[: index + 1]))
    found = [text.rfind(token, start, stop) + len(token) for token in ends.tokens if text.rfind(token, start, stop) >= 0]
    return (start, max(found, default=stop)) if stop > start else None


def _common_prefix(one: str, two: str) -> int:
    """Length of what both texts start with; by halving, as comparing slices is far quicker than comparing characters."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
