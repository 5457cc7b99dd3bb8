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
from tui_ft.data.rendering import Message, Renderer, common_prefix, one_of, render_errors

NOT_SHOWN = "the template does not show the answer"


def answers(
    renderer: Renderer, messages: Sequence[Message], tools: Sequence[dict[str, Any]], stops: Collection[str], special: Collection[str]
) -> tuple[str, list[Span]]:
    """The rendered conversation and the spans of its answers, each with its end of turn, as they follow in it.

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
    spans = sorted(turns.span(number) for number in numbers)
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
        if calls and not places.calls:
            raise BadRow(f"the template does not show the tool calls; {REMEDY}")
        if not (calls or places.closes):  # an answer whose start was cut off (thinking) still shows its end
            raise BadRow(NOT_SHOWN)
        first = min(start for start, _ in places.spans)
        start = self._start(number, first)
        last, stop = self._call_end(number, places) if calls else self._answer_end(number, places)
        before, after = self._found.neighbours(number, first)
        if not before <= start <= first <= last <= stop or last > after:
            raise BadRow(f"the template writes another message inside an answer, so that they cannot be told apart; {REMEDY}")
        return start, stop

    def _start(self, number: int, first: int) -> int:
        """The first character that the model has to write: the template's prompt to answer ends there, or its header for an answer."""
        text, bare = self._found.text, self._found.bare
        prompt = self._renderer.render(self._messages[:number], self._tools, add_generation_prompt=True) if number else ""
        if prompt and text.startswith(prompt) and len(prompt) <= first:
            return len(prompt)
        before, _ = self._found.neighbours(number, first)
        header = self._renderer.header
        if header and (place := bare.rfind(header, before, first)) >= 0:
            return place + len(header)
        own = self._alone(number)
        own_first = min((start for start, _ in own.places[number].spans), default=0) if number in own.places else 0
        lead = own.bare[len(prompt) : own_first] if prompt and own.text.startswith(prompt) else ""
        if lead and bare.endswith(lead, before, first):
            return first - len(lead)
        if first in self._found.places[number].opens:
            content = self._messages[number]["content"]
            trimmed = {**self._messages[number], "content": content.lstrip()}
            shown = len(text) - len(self._renderer.render([*self._messages[:number], trimmed, *self._messages[number + 1 :]], self._tools))
            return first - shown  # the white space it begins with, as far as the template shows it
        return self._start_beside_plain(number, first, before)

    def _start_beside_plain(self, number: int, first: int, before: int) -> int:
        """The end of what stands before the answer also when it is a plain one."""
        plain = [*self._messages[:number], {"role": ASSISTANT, "content": "x"}, *self._messages[number + 1 :]]
        try:
            found = marked(self._renderer, plain, self._tools, self._renderer.render(plain, self._tools), [number])
            start = common_prefix(self._found.text[:first], found.text[: min(found.places[number].opens)])
        except (*render_errors(), BadRow):  # type: ignore[misc]
            start = -1
        if start < before:
            raise BadRow(f"the template rewrites what stands before an answer, so that its start cannot be told; {REMEDY}")
        return start

    def _alone(self, number: int) -> Marked:
        """The rendering up to this answer, in which it is the last message."""
        messages = self._messages[: number + 1]
        return marked(self._renderer, messages, self._tools, self._renderer.render(messages, self._tools), [number])

    def _answer_end(self, number: int, places: Places) -> Span:
        """Where the answer's text ends, and where its end of turn does; both the same where no stop token follows."""
        text = self._found.text
        last = max(end for _, end in places.spans)
        content = self._messages[number]["content"]
        last += common_prefix(content[len(content.rstrip()) :], text[last:]) if last in places.closes else 0
        _, limit = self._found.neighbours(number, last)
        end = self._stops.search(self._found.bare, last, limit)
        return last, end.end() if end else last

    def _call_end(self, number: int, places: Places) -> Span:
        """As where its message is the last one: what names the tool again, in the turn of its result, is not the call's."""
        own = self._alone(number)
        shown = own.places.get(number, Places())
        tail = own.bare[max((end for _, end in shown.spans), default=0) :]
        ends = list(self._special.finditer(tail))
        if not ends:
            raise BadRow("the template ends a tool call with no token at which generation could stop; set prompt.add_tokens, or use another template")
        last = max([end for _, end in places.calls[: len(shown.calls)]] + (places.closes if shown.closes else []))
        lengths = [end.end() for end in ends if self._found.bare.startswith(tail[: end.end()], last)]
        if not lengths:
            raise BadRow(f"the template rewrites a tool call once other turns follow, so that its end cannot be told; {REMEDY}")
        return last, last + lengths[-1]
