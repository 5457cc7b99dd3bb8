"""What is learned: the characters of each answer with its end, found in the template's own rendering.

No template is known by name. An answer is all that a model has to write: it starts where the rendering of the messages before it, with the
prompt to answer, ends (prefix difference), and stops behind the token at which generation stops. Where a template writes earlier turns
otherwise once later ones follow (thinking that is removed, a system text that moves), that prefix does not hold; then the answer starts
behind the template's header for an answer. Where its words stand is known by marks (`marks.py`), never guessed from the words themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from tui_ft.data.conversations import ASSISTANT, BadRow
from tui_ft.data.marks import REMEDY, Marked, Places, Span, marked
from tui_ft.data.rendering import Message, Renderer, common_prefix, one_of

NOT_SHOWN = "the template does not show the answer"


def answers(
    renderer: Renderer, messages: Sequence[Message], tools: Sequence[dict[str, Any]], stops: Collection[str], special: Collection[str]
) -> tuple[str, list[Span]]:
    """The rendered conversation and the spans of its answers, each with its end of turn, in order.

    Cost: two renderings, and one or two for each answer.

    Args:
        stops: the tokens at which generation stops.
        special: all control tokens; one that is no stop ends a tool call only.

    Raises:
        BadRow: an answer is not shown, shown twice, or cannot be told from what surrounds it.
        What Jinja raises where the template refuses the conversation.
    """
    text = renderer.render(messages, tools)
    numbers = [number for number, message in enumerate(messages) if message["role"] == ASSISTANT]
    found = marked(renderer, messages, tools, text, numbers)
    turns = _Turns(renderer, messages, tools, found, stops, special)
    spans = [turns.span(number) for number in numbers]
    if any(stop > start for (_, stop), (start, _) in pairwise(spans)):
        raise BadRow(f"the template writes answers into one another; {REMEDY}")
    return text, spans


class _Turns:
    """The answers of one rendering."""

    def __init__(
        self,
        renderer: Renderer,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        found: Marked,
        stops: Collection[str],
        special: Collection[str],
    ) -> None:
        self._renderer, self._messages, self._tools, self._found = renderer, messages, tools, found
        self._stops, self._special = one_of(stops), one_of(special)

    def span(self, number: int) -> Span:
        message, places = self._messages[number], self._found.places.get(number, Places())
        calls = bool(message.get("tool_calls"))
        if len(places.opens) > 1 or len(places.closes) > 1:
            raise BadRow(f"the template writes an answer twice; {REMEDY}")
        if calls and not places.others:
            raise BadRow(f"the template does not show the tool calls; {REMEDY}")
        if not (calls or places.closes):  # an answer whose start was cut off (thinking) still shows its end
            raise BadRow(NOT_SHOWN)
        first = min([*places.opens, *places.closes, *(start for start, _ in places.others)])
        start = self._start(number, first, lost=not places.opens and bool(message["content"].strip()))
        last, stop = self._call_end(number, first, places) if calls else self._answer_end(number, places)
        before, after = self._found.neighbours(number, first)
        if not before <= start <= first <= last <= stop <= max(after, last) or last > after:
            raise BadRow(f"the template writes another message inside an answer, so that they cannot be told apart; {REMEDY}")
        return start, stop

    def _start(self, number: int, first: int, lost: bool) -> int:
        text = self._found.text
        if number:
            prompt = self._renderer.render(self._messages[:number], self._tools, add_generation_prompt=True)
            if text.startswith(prompt) and len(prompt) <= first:
                return len(prompt)
        before, _ = self._found.neighbours(number, first)
        header = self._renderer.header
        place = self._found.bare.rfind(header, before, first) if header else -1
        if place >= 0:
            return place + len(header)
        if not lost and first in self._found.places[number].opens:
            return first
        plain = [*self._messages[:number], {"role": ASSISTANT, "content": "x"}, *self._messages[number + 1 :]]
        without = self._renderer.render(plain, self._tools)
        opens = marked(self._renderer, plain, self._tools, without, [number]).places[number].opens
        start = common_prefix(text[:first], without[: opens[0]] if opens else "")
        if start < before:
            raise BadRow(f"the template rewrites what stands before an answer, so that its start cannot be told; {REMEDY}")
        return start

    def _answer_end(self, number: int, places: Places) -> Span:
        """Where the answer's text ends, and where its end of turn does; both the same where no stop token follows."""
        text = self._found.text
        last = max([*places.closes, *(end for _, end in places.others)])
        content = self._messages[number]["content"]
        last += common_prefix(content[len(content.rstrip()) :], text[last:]) if last in places.closes else 0
        _, limit = self._found.neighbours(number, last)
        end = self._stops.search(self._found.bare, last, limit)
        return last, end.end() if end else last

    def _call_end(self, number: int, first: int, places: Places) -> Span:
        """A tool call ends with its message: what the template writes up to there, however later messages repeat its words."""
        own = common_prefix(self._found.text, self._renderer.render(self._messages[: number + 1], self._tools))
        inside = [end for _, end in places.others if first < end <= own] + [end for end in places.closes if end <= own]
        ends = [found.end() for found in self._special.finditer(self._found.bare, max(inside), own)] if inside else []
        if not inside:
            raise BadRow(f"the template rewrites a tool call once other turns follow, so that its end cannot be told; {REMEDY}")
        if not ends:
            raise BadRow("the template ends a tool call with no token at which generation could stop; set prompt.add_tokens, or use another template")
        return max(inside), ends[-1]
