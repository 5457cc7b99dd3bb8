"""Encoded conversations → the samples of training, cut to the longest length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tui_ft.data.conversations import BadRow, Conversation, Ledger
from tui_ft.data.encoding import Encoded, Encoder
from tui_ft.data.reading import Progress
from tui_ft.recipe.schema import Prompt

if TYPE_CHECKING:
    import numpy as np

IGNORED = -100
"""The label of a token that is not learned."""
ANSWER_LOST = "the whole answer is beyond max_length"
TOO_LONG = "longer than max_length"
_BATCH = 512  # conversations tokenized at once: enough for every core, few enough to show progress


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of training, cut to the longest length; its texts are kept only where asked for."""

    ids: np.ndarray
    """Token ids, int32."""
    learned: np.ndarray
    """Whether each token enters the loss, bool."""
    group: str
    """Samples of one group stay on one side of the validation split."""
    pieces: tuple[str, ...] = ()
    """The text of each token; joined, they are the rendered text."""

    @property
    def labels(self) -> np.ndarray:
        import numpy as np

        return np.where(self.learned, self.ids, np.int32(IGNORED))


@dataclass
class Counts:
    """What was measured on the way."""

    lengths: list[tuple[int, int]]
    """Of each rendered conversation before anything was cut: its tokens, and the place of the first one that is learned."""


def encode(
    conversations: Sequence[Conversation],
    tokenizer: Any,
    prompt: Prompt,
    ledger: Ledger,
    counts: Counts,
    *,
    keep_pieces: int = 0,
    on_progress: Progress | None = None,
) -> Iterator[Sample]:
    """Render, tokenize once as a whole, mask and cut; the first `keep_pieces` samples carry their texts.

    What cannot be rendered counts as a bad row; what does not fit is cut or dropped as `prompt.overlong` says (split leaves them whole,
    for `blocks`).
    """
    encoder = Encoder(tokenizer, prompt)
    done = given = 0
    stream = iter(conversations)
    while batch := list(islice(stream, _BATCH)):
        for conversation, encoded in zip(batch, encoder.encode(batch), strict=True):
            if isinstance(encoded, BadRow):
                ledger.drop_bad(encoded, conversation.origin, conversation.text(200))
                continue
            sample = _sample(conversation, encoded, prompt, ledger, counts, given < keep_pieces)
            if sample is not None:
                given += 1
                yield sample
        done += len(batch)
        if on_progress:
            on_progress("tokenize", done, len(conversations))


def blocks(samples: Iterable[Sample], length: int) -> Iterator[Sample]:
    """Documents one after the other, cut into blocks of `length` tokens that all train; the eos between documents is theirs already."""
    import numpy as np

    pending: list[Sample] = []
    have = 0
    number = 0
    for sample in samples:
        pending.append(sample)
        have += len(sample.ids)
        if have < length:
            continue
        joined = _joined(pending, np)
        while have >= length:
            yield _part(joined, 0, length, f"block {number}")
            joined = _part(joined, length, have, "")
            have -= length
            number += 1
        pending = [joined] if have else []
    if have > 1:  # one token alone predicts nothing
        yield _part(_joined(pending, np), 0, have, f"block {number}")


def _joined(samples: list[Sample], np: Any) -> Sample:
    pieces = tuple(piece for sample in samples for piece in sample.pieces) if all(sample.pieces for sample in samples) else ()
    return Sample(np.concatenate([sample.ids for sample in samples]), np.concatenate([sample.learned for sample in samples]), "", pieces)


def _part(sample: Sample, start: int, stop: int, group: str) -> Sample:
    return Sample(sample.ids[start:stop], sample.learned[start:stop], group, sample.pieces[start:stop])


def _sample(conversation: Conversation, encoded: Encoded, prompt: Prompt, ledger: Ledger, counts: Counts, keep_pieces: bool) -> Sample | None:
    import xxhash

    targets = encoded.learned[1:]  # the first token is never a target
    counts.lengths.append((len(encoded.ids), int(targets.argmax()) + 1 if targets.any() else len(encoded.ids)))
    cut = len(encoded.ids)
    if cut > prompt.max_length and prompt.overlong == "drop":
        ledger.drop(TOO_LONG)
        return None
    if cut > prompt.max_length and prompt.overlong != "split":
        cut = prompt.max_length
    if not encoded.learned[1:cut].any():
        ledger.drop(ANSWER_LOST if cut < len(encoded.ids) else "nothing to learn")
        return None
    pieces = tuple(encoded.pieces(cut)) if keep_pieces else ()
    group = conversation.group or xxhash.xxh3_64_hexdigest(encoded.ids.tobytes())  # exact duplicates share a side
    return Sample(encoded.ids[:cut], encoded.learned[:cut], group, pieces)
