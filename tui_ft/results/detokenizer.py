"""Text from tokens as they come: never half a character, and nothing of the template around the answer."""

from __future__ import annotations

from typing import Any

REPLACEMENT = "\ufffd"
"""What a decoder gives for bytes that are not (yet) a character."""


class Detokenizer:
    """Turns token ids into pieces of text whose sum is the text of all ids.

    A token may hold a part of a character, and some tokenizers treat the first token of a text in a way of their
    own. So each new piece is the difference of two decodings that start at the same, earlier token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # of the window that is decoded
        self._shown = 0  # ids before this one have been given out

    def add(self, token_id: int) -> str:
        """The text that became certain with this token; often one word, sometimes nothing."""
        self._ids.append(token_id)
        return self._advance(final=False)

    def finish(self) -> str:
        """What was held back as half a character and never completed."""
        return self._advance(final=True)

    def _advance(self, final: bool) -> str:
        before, after = self._decode(self._start, self._shown), self._decode(self._start, len(self._ids))
        if len(after) <= len(before) or (after.endswith(REPLACEMENT) and not final):
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        return after[len(before) :]

    def _decode(self, start: int, end: int) -> str:
        text: str = self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class AnswerText:
    """Takes what a template puts around an answer off the streamed text: space before it, and its end where that is plain text (`### End`)."""

    def __init__(self, end: str) -> None:
        self.ended = False
        """The end was met: nothing more belongs to the answer."""
        self._end = end
        self._begun = False
        self._held = ""

    def add(self, piece: str) -> str:
        """What of the text so far surely belongs to the answer and was not given out yet."""
        if self.ended:
            return ""
        if not self._begun:
            piece = piece.lstrip()
            self._begun = bool(piece)
        text = self._held + piece
        if self._end and self._end in text:
            self.ended, self._held = True, ""
            return text.partition(self._end)[0]
        kept = len(text) - self._possible_end(text)
        self._held = text[kept:]
        return text[:kept]

    def finish(self) -> str:
        """What was held back because it looked like the start of the end."""
        held, self._held = self._held, ""
        return held

    def _possible_end(self, text: str) -> int:
        """Length of the longest tail of `text` that the end could start with."""
        return next((size for size in range(min(len(text), len(self._end)), 0, -1) if text.endswith(self._end[:size])), 0)
