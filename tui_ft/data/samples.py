"""Conversations → tokens with a mask, in batches: the part of the road where text ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tui_ft.data import mask, templates
from tui_ft.data.conversations import BadRow, Conversation, Ledger
from tui_ft.data.mask import Span
from tui_ft.data.reading import Progress
from tui_ft.recipe.schema import Prompt
from tui_ft.text import one_line

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

    lengths: list[int]
    """Tokens of each rendered conversation before anything was cut."""
    truncated: int = 0
    answer_lost: int = 0


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
    ends = templates.turn_ends(tokenizer)
    bos = tokenizer.bos_token if templates.adds_bos(tokenizer) else ""
    done = given = 0
    stream = iter(conversations)
    while batch := list(islice(stream, _BATCH)):
        rendered = list(_rendered(batch, tokenizer, prompt, ends, bos, ledger))
        # Special tokens stand in the text already: the tokenizer must not add its own, or bos would come twice.
        texts = [text for _, text, _ in rendered]
        encodings = tokenizer(texts, add_special_tokens=False, verbose=False).encodings if texts else []
        for (conversation, text, spans), encoding in zip(rendered, encodings, strict=True):
            sample = _sample(conversation, text, spans, encoding, tokenizer, prompt, ledger, counts, given < keep_pieces)
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


def _rendered(
    batch: list[Conversation], tokenizer: Any, prompt: Prompt, ends: templates.TurnEnds, bos: str, ledger: Ledger
) -> Iterator[tuple[Conversation, str, list[Span]]]:
    for conversation in batch:
        if conversation.is_document:
            text = bos + conversation.turns[0].content + tokenizer.eos_token
            yield conversation, text, [(0, len(text))]
            continue
        try:
            text, spans = mask.answers(tokenizer, conversation.messages(), ends)
            if not spans:
                raise BadRow("the template does not show the answer")
        except BadRow as problem:
            ledger.drop_bad(problem, conversation.origin, conversation.text(200))
        except templates.render_errors() as error:
            ledger.drop_bad(BadRow(f"the template refuses it: {one_line(error, 100)}"), conversation.origin, conversation.text(200))
        else:
            yield conversation, text, spans if prompt.learn == "assistant" else [(0, len(text))]


def _sample(
    conversation: Conversation,
    text: str,
    spans: list[Span],
    encoding: Any,
    tokenizer: Any,
    prompt: Prompt,
    ledger: Ledger,
    counts: Counts,
    keep_pieces: bool,
) -> Sample | None:
    import numpy as np
    import xxhash

    ids = np.asarray(encoding.ids, dtype=np.int32)
    learned = np.zeros(len(ids), dtype=bool)
    for span in spans:
        first, last = _token_range(encoding, text, span)
        learned[first:last] = True
    bos = tokenizer.bos_token_id
    if len(ids) and ids[0] == bos:
        learned[0] = False  # nothing stands before it that could predict it
        if len(ids) > 1 and ids[1] == bos and bos != tokenizer.eos_token_id:
            ledger.drop_bad(BadRow("the bos token comes twice"), conversation.origin, text[:200])
            return None
    counts.lengths.append(len(ids))
    cut = len(ids)
    if cut > prompt.max_length and prompt.overlong == "drop":
        ledger.drop(TOO_LONG)
        return None
    if cut > prompt.max_length and prompt.overlong != "split":
        counts.truncated += 1
        cut = prompt.max_length
    if not learned[1:cut].any():  # the first token is never a target
        lost = cut < len(ids)
        counts.answer_lost += lost
        ledger.drop(ANSWER_LOST if lost else "nothing to learn")
        return None
    pieces = tuple(_pieces(text, encoding.offsets[:cut])) if keep_pieces else ()
    group = conversation.group or xxhash.xxh3_64_hexdigest(ids.tobytes())  # exact duplicates share a side
    return Sample(ids[:cut], learned[:cut], group, pieces)


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


def _pieces(text: str, offsets: Sequence[tuple[int, int]]) -> Iterator[str]:
    """The text of each token such that nothing is lost or doubled between them: of a character made of several tokens, the first one has it."""
    place = 0
    for _, end in offsets:
        yield text[place : max(place, end)]
        place = max(place, end)
