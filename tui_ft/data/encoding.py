"""Conversations → tokens with a mask, a batch at a time: the part of the road where text ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from tui_ft.data import mask, templates
from tui_ft.data.conversations import BadRow, Conversation
from tui_ft.data.marks import Span
from tui_ft.data.plain_reading import PlainReader, spelled
from tui_ft.data.rendering import Message, Renderer, one_of, render_errors
from tui_ft.data.shapes import Shapes
from tui_ft.data.tokenizer import stop_token_ids
from tui_ft.recipe.schema import Prompt
from tui_ft.text import one_line

if TYPE_CHECKING:
    import numpy as np

DOUBLED_BOS = "the bos token comes twice"
Kind = Literal["", "bos", "eos", "end", "pad", "special"]
_HALF = re.compile("[\ud800-\udfff]")
_THINKING = re.compile(r"</?think(ing)?>")  # the model's own words in an answer, which templates look for


@dataclass(frozen=True)
class Encoded:
    """One conversation as tokens, whole: nothing is cut yet."""

    text: str
    """What the template made of it."""
    ids: np.ndarray
    """Token ids, int32, shape (tokens,)."""
    learned: np.ndarray
    """Whether each token enters the loss, bool, shape (tokens,)."""
    spelled: tuple[str, ...] = ()
    """Control tokens that its messages spell, each once: read as text, not as the token."""
    _encoding: Any = field(default=None, repr=False)

    @cached_property
    def offsets(self) -> Sequence[Span]:
        """The characters of `text` that each token stands for; tokens of one character all name it whole."""
        offsets: Sequence[Span] = self._encoding.offsets
        return offsets

    def pieces(self, count: int) -> list[str]:
        """The texts of the first `count` tokens such that nothing is lost or doubled: of a character made of several tokens, the first has it."""
        found, place = [], 0
        for _, end in self.offsets[:count]:
            found.append(self.text[place : max(place, end)])
            place = max(place, end)
        return found


@dataclass(frozen=True)
class _Rendered:
    text: str
    learned: list[Span]
    spelled: list[Span]
    """Control tokens that are text."""


class Encoder:
    """Renders with the tokenizer's template, tokenizes once as a whole, and marks what is learned."""

    def __init__(self, tokenizer: Any, prompt: Prompt) -> None:
        self._tokenizer = tokenizer
        self._learns_all = prompt.learn == "all"
        self._renderer = Renderer(tokenizer)
        ends, special = templates.turn_ends(tokenizer), templates.special_tokens(tokenizer)
        self._shapes = Shapes(self._renderer, {*ends.tokens, *ends.calls}, special)
        self._reader = PlainReader(tokenizer, special)
        self._special, self._in_answers = one_of(special), one_of(_forbidden_in_answers(tokenizer, self._renderer, special))
        self._bos = tokenizer.bos_token if templates.adds_bos(tokenizer) else ""
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()  # some models' files carry a length: rows are cut later, and told
        self._backend.no_padding()
        self._backend.encode_special_tokens = False
        self.stop_ids: frozenset[int] = frozenset(stop_token_ids(tokenizer))
        """The tokens at which generation ends: a model that learns none of them never stops."""
        self.pad_id: int | None = tokenizer.pad_token_id
        self._kinds = _kinds(tokenizer, special, self.stop_ids)

    def kind(self, token_id: int) -> Kind:
        """What sort of control token it is (`end`: it ends a turn); empty for an ordinary one."""
        return self._kinds.get(token_id, "")

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded | BadRow]:
        """One answer for each conversation; a BadRow (not raised) for what cannot be rendered or learned from."""
        rendered = [_whole(self._render(conversation)) for conversation in conversations]
        texts = [item.text for item in rendered if isinstance(item, _Rendered) and not item.spelled]
        # Special tokens stand in the text already: the tokenizer must not add its own, or bos would come twice.
        encodings = iter(self._backend.encode_batch(texts, add_special_tokens=False) if texts else [])
        return [item if isinstance(item, BadRow) else self._marked(item, None if item.spelled else next(encodings)) for item in rendered]

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """The tokens that ask a model for the next answer, read as in training: a control token that a message spells is text.

        Raises:
            BadRow: a message spells a control token that the template acts on.
            What Jinja raises where the template refuses the conversation.
        """
        asking = Renderer(self._tokenizer, asks=True)
        text = asking.render(messages, tools)
        literals = spelled(asking, messages, tools, text, self._special, self._in_answers)
        return list((self._reader.read(text, literals) if literals else self._backend.encode(text, add_special_tokens=False)).ids)

    def _render(self, conversation: Conversation) -> _Rendered | BadRow:
        if conversation.is_document:
            content, start = conversation.turns[0].content, len(self._bos)
            text = self._bos + content + self._tokenizer.eos_token
            return _Rendered(text, [(0, len(text))], [match.span() for match in self._special.finditer(text, start, start + len(content))])
        messages = conversation.messages()
        try:
            text, spans = self._answers(messages, conversation.tools)
            literals = spelled(self._renderer, messages, conversation.tools, text, self._special, self._in_answers)
        except BadRow as problem:
            return problem
        except render_errors() as error:
            return BadRow(f"the template refuses it: {one_line(error, 100)}")
        return _Rendered(text, spans, literals)

    def _answers(self, messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> tuple[str, list[Span]]:
        try:
            text, spans = self._shapes.answers(messages, tools)
        except BadRow as problem:
            if not self._learns_all or problem.reason == mask.NOT_SHOWN:
                raise
            text, spans = self._renderer.render(messages, tools), []
        return text, [(0, len(text))] if self._learns_all else spans

    def _marked(self, item: _Rendered, encoding: Any) -> Encoded | BadRow:
        import numpy as np

        try:
            encoding = encoding or self._reader.read(item.text, item.spelled)
        except BadRow as problem:
            return problem
        ids = np.asarray(encoding.ids, dtype=np.int32)
        learned = np.zeros(len(ids), dtype=bool)
        for span in item.learned:
            first, last = _token_range(encoding, item.text, span)
            learned[first:last] = True
        bos = self._tokenizer.bos_token_id
        if len(ids) and ids[0] == bos:
            learned[0] = False  # nothing stands before it that could predict it
            if len(ids) > 1 and ids[1] == bos:
                return BadRow(DOUBLED_BOS)
        names = tuple(dict.fromkeys(item.text[start:stop] for start, stop in item.spelled))
        return Encoded(item.text, ids, learned, names, encoding)


def _whole(item: _Rendered | BadRow) -> _Rendered | BadRow:
    """JSON can write half a character (`\\ud800`), which no tokenizer takes."""
    if isinstance(item, BadRow) or item.text.isascii() or not _HALF.search(item.text):
        return item
    return BadRow("half a character (a lone surrogate)")


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


def _forbidden_in_answers(tokenizer: Any, renderer: Renderer, special: set[str]) -> set[str]:
    """The control tokens that an answer may spell only as text: the named ones, and all that the template writes.

    The others stay tokens in an answer, which may hold a tool call in the model's own control tokens, as LFM2's do.
    """
    written = {token for token in special if token in renderer.source or token in templates.probe_text(renderer)}
    return {token for token in written | set(tokenizer.all_special_tokens) if not _THINKING.fullmatch(token)}


def _kinds(tokenizer: Any, special: set[str], stops: frozenset[int]) -> dict[int, Kind]:
    kinds: dict[int, Kind] = dict.fromkeys(tokenizer.convert_tokens_to_ids(sorted(special)), "special")
    kinds |= dict.fromkeys(stops, "end")
    named: tuple[tuple[Kind, int | None], ...] = (("pad", tokenizer.pad_token_id), ("bos", tokenizer.bos_token_id), ("eos", tokenizer.eos_token_id))
    return kinds | {number: kind for kind, number in named if number is not None}
