"""Conversations → tokens with a mask, a batch at a time: the part of the road where text ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tui_ft.data import mask, templates
from tui_ft.data.conversations import BadRow, Conversation
from tui_ft.data.mask import Span
from tui_ft.recipe.schema import Prompt
from tui_ft.text import one_line

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as tokens, whole: nothing is cut yet."""

    text: str
    """What the template made of it."""
    ids: np.ndarray
    """Token ids, int32, shape (tokens,)."""
    learned: np.ndarray
    """Whether each token enters the loss, bool, shape (tokens,)."""
    offsets: Sequence[tuple[int, int]]
    """The characters of `text` that each token stands for; tokens of one character all name it whole."""

    def pieces(self, count: int) -> list[str]:
        """The texts of the first `count` tokens such that nothing is lost or doubled: of a character made of several tokens, the first has it."""
        found, place = [], 0
        for _, end in self.offsets[:count]:
            found.append(self.text[place : max(place, end)])
            place = max(place, end)
        return found


class Encoder:
    """Renders with the tokenizer's template, tokenizes once as a whole, and marks what is learned."""

    def __init__(self, tokenizer: Any, prompt: Prompt) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._ends = templates.turn_ends(tokenizer)
        self._bos = tokenizer.bos_token if templates.adds_bos(tokenizer) else ""

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded | BadRow]:
        """One answer for each conversation; a BadRow (not raised) for what cannot be rendered or learned from."""
        rendered = [self._render(conversation) for conversation in conversations]
        texts = [item[0] for item in rendered if not isinstance(item, BadRow)]
        # Special tokens stand in the text already: the tokenizer must not add its own, or bos would come twice.
        encodings = iter(self._tokenizer(texts, add_special_tokens=False, verbose=False).encodings if texts else [])
        return [item if isinstance(item, BadRow) else self._marked(*item, next(encodings)) for item in rendered]

    def _render(self, conversation: Conversation) -> tuple[str, list[Span]] | BadRow:
        if conversation.is_document:
            text = self._bos + conversation.turns[0].content + self._tokenizer.eos_token
            return text, [(0, len(text))]
        try:
            text, spans = mask.answers(self._tokenizer, conversation.messages(), self._ends)
        except BadRow as problem:
            return problem
        except templates.render_errors() as error:
            return BadRow(f"the template refuses it: {one_line(error, 100)}")
        if not spans:
            return BadRow("the template does not show the answer")
        return text, spans if self._prompt.learn == "assistant" else [(0, len(text))]

    def _marked(self, text: str, spans: list[Span], encoding: Any) -> Encoded | BadRow:
        import numpy as np

        ids = np.asarray(encoding.ids, dtype=np.int32)
        learned = np.zeros(len(ids), dtype=bool)
        for span in spans:
            first, last = _token_range(encoding, text, span)
            learned[first:last] = True
        bos = self._tokenizer.bos_token_id
        if len(ids) and ids[0] == bos:
            learned[0] = False  # nothing stands before it that could predict it
            if len(ids) > 1 and ids[1] == bos and bos != self._tokenizer.eos_token_id:
                return BadRow("the bos token comes twice")
        return Encoded(text, ids, learned, encoding.offsets)


def _token_range(encoding: Any, text: str, span: Span) -> tuple[int, int]:
    """The tokens that hold a character of the span, end excluded.

    A token that joins the answer's first letters to the character before them is the answer's: left out, the model would never learn how
    an answer begins. One that joins only white space to the header is the header's.
    """
    start, stop = span
    first = last = None
    for char in range(start, stop):
        first = encoding.char_to_token(char)
        if first is not None:
            break
    for char in range(stop - 1, start - 1, -1):
        last = encoding.char_to_token(char)
        if last is not None:
            break
    if first is None or last is None:
        return 0, 0
    begin, end = encoding.token_to_chars(first)
    if begin < start and first < last and text[start:end].isspace():
        first += 1
    while last + 1 < len(encoding) and (chars := encoding.token_to_chars(last + 1)) and chars[0] < stop and chars[1] > start:
        last += 1  # a character of several tokens (bytes of an emoji): char_to_token names the first
    return first, last + 1
