"""Encoded conversations → the samples of training: what may be learned from, and what a maximum length leaves of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from tui_ft.data.conversations import BadRow, Conversation, Ledger
from tui_ft.data.encoding import Encoded, Encoder
from tui_ft.recipe.schema import Prompt
from tui_ft.text import one_line

if TYPE_CHECKING:
    import numpy as np

IGNORED = -100
"""The label of a token that is not learned."""
ANSWER_LOST = "the whole answer is beyond max_length"
TOO_LONG = "longer than max_length"
NOTHING = "nothing to learn"
SPELLED = "control tokens spelled in messages"
PAD_LEARNED = "the padding token is among those to learn"
_BATCH = 512  # conversations tokenized at once: enough for every core, few enough to show progress
_BATCH_CHARACTERS = 1 << 21  # books are long, and a token takes some hundred bytes until it is counted


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation or document, whole: nothing is cut yet."""

    encoded: Encoded
    origin: str
    """Its place in the source, harmless to show."""
    group: int
    """Samples of one group (64 bits) stay on one side of the validation split: a tree's, else its `content`."""
    content: int
    """Hash of its token ids, 64 bits: the same for exact duplicates."""
    first: int
    """Place of the first token that is a target; the first token of a text never is one."""
    stop: int
    """Place of the first learned token that ends a turn or the text; the number of tokens where none is learned."""


def encode(conversations: Iterable[Conversation], encoder: Encoder, ledger: Ledger) -> Iterator[Sample]:
    """Render, tokenize and mask; what cannot be rendered counts as a bad row, what has nothing to learn is left out."""

    stops = sorted(encoder.stop_ids)
    for batch in _batches(conversations):
        for conversation, encoded in zip(batch, encoder.encode(batch), strict=True):
            if isinstance(encoded, BadRow):
                ledger.drop_bad(encoded, conversation.origin, conversation.text(200))
                continue
            sample = _sample(conversation, encoded, stops)
            if sample.first == len(encoded.ids):
                ledger.drop(NOTHING, sample=f"{sample.origin}: {encoded.text[:200]}")
                continue
            if (encoded.learned & (encoded.ids == encoder.pad_id)).any():
                ledger.note(PAD_LEARNED, sample.origin)
            if encoded.spelled:
                ledger.note(SPELLED, f"{sample.origin}: {', '.join(encoded.spelled)}")
            yield sample


def _batches(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    batch: list[Conversation] = []
    size = 0
    for conversation in conversations:
        batch.append(conversation)
        size += sum(len(turn.content) for turn in conversation.turns)
        if len(batch) >= _BATCH or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _sample(conversation: Conversation, encoded: Encoded, stops: list[int]) -> Sample:
    import numpy as np

    ids, learned = encoded.ids, encoded.learned
    first = _first(learned[1:]) + 1 if len(ids) else 0
    ends = learned & np.logical_or.reduce([ids == stop for stop in stops])
    content = xxhash.xxh3_64_intdigest(ids.tobytes())
    group = xxhash.xxh3_64_intdigest(conversation.group.encode("utf-8", "surrogatepass")) if conversation.group else content
    return Sample(encoded, one_line(conversation.origin, 200), group, content, first, _first(ends))


def _first(marks: np.ndarray) -> int:
    """The place of the first mark; their number where there is none."""
    place = int(marks.argmax()) if len(marks) else 0
    return place if len(marks) and marks[place] else len(marks)


def cuts(lengths: np.ndarray, firsts: np.ndarray, prompt: Prompt) -> np.ndarray:
    """How many tokens of each sample train, int64; 0 for one that is left out. Documents that are split stay whole here, for `blocks`.

    Args:
        lengths: tokens of each sample, shape (samples,).
        firsts: place of the first target of each, shape (samples,).
    """
    import numpy as np

    if prompt.overlong == "split":
        return lengths.astype(np.int64)
    cut = np.minimum(lengths, prompt.max_length).astype(np.int64)
    left_out = lengths > prompt.max_length if prompt.overlong == "drop" else firsts >= cut
    return np.where(left_out, 0, cut)


def blocks(tokens: int, length: int) -> list[tuple[int, int]]:
    """Where documents of `tokens` tokens in all, one after the other, are cut into blocks of `length` that all train, as (start, stop).

    The eos between documents is theirs already. A rest of one token is left out: alone it predicts nothing.
    """
    starts = range(0, tokens, length)
    return [(start, min(start + length, tokens)) for start in starts if tokens - start > 1]
