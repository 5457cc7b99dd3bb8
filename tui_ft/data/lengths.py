"""How long the samples are, in tokens, and what any maximum would cost: one table, from which every maximum is answered at once."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pydantic import BaseModel, Field

MOST_ENTRIES = 2000
"""The terminal gets no more: it answers a key in a frame, and a child's answer stays small."""
_PACKED_SAMPLES = 4000  # what packing would fill is judged by so many of the lengths, spread evenly: some milliseconds

Entry = tuple[int, int, int]
"""(tokens, place of the first learned token, samples): as many samples have this length and begin to learn there."""


class Lengths(BaseModel):
    """Tokens of each rendered conversation before anything is cut."""

    mean: float = 0.0
    p50: int = 0
    p95: int = 0
    max: int = 0
    truncated: int = Field(0, description="Samples cut to prompt.max_length.")
    answer_lost: int = Field(0, description="Of these, samples that lost every learned token and were dropped.")


@dataclass(frozen=True)
class Cut:
    """What a maximum does to the samples."""

    samples: int
    """All of them, whatever becomes of them."""
    too_long: int
    """Longer than the maximum: cut, dropped or split as `prompt.overlong` says."""
    answer_lost: int
    """Of these, how many would keep no learned token."""
    kept: int
    tokens: int
    """Tokens of an epoch: of what is kept, after cutting."""


def table(pairs: Iterable[tuple[int, int]]) -> list[Entry]:
    """The lengths of samples given as (tokens, first learned token), as a table sorted by length."""
    return sorted((length, first, count) for (length, first), count in Counter(pairs).items())


def coarse(entries: Sequence[Entry]) -> list[Entry]:
    """At most about `MOST_ENTRIES` of a table, by rounding lengths up to three, then two digits: within one, then ten percent."""
    for digits in (3, 2):
        if len(entries) <= MOST_ENTRIES:
            break
        counts: Counter[tuple[int, int]] = Counter()
        for length, first, count in entries:
            size = _rounded(length, digits)
            counts[size, min(_rounded(first, digits), size)] += count
        entries = sorted((length, first, count) for (length, first), count in counts.items())
    return list(entries)


def cut(entries: Sequence[Entry], maximum: int, overlong: str = "truncate") -> Cut:
    """What `maximum` tokens do to the samples of a table."""
    samples = too_long = lost = kept = tokens = 0
    for length, first, count in entries:
        samples += count
        over = length > maximum
        too_long += count * over
        gone = over and first >= maximum
        lost += count * gone
        if overlong == "split" or not over or (overlong == "truncate" and not gone):
            kept += count
            tokens += count * (length if overlong == "split" else min(length, maximum))
    return Cut(samples, too_long, lost, kept, tokens)


def packing_fill(entries: Sequence[Entry], maximum: int) -> float:
    """The share of packed rows of `maximum` tokens that would hold tokens, 0 to 1, by best-fit decreasing, as trl packs; 0 without samples."""
    lengths = [min(length, maximum) for length in _spread(entries, _PACKED_SAMPLES)]
    rooms: list[int] = []  # free tokens of the rows that are not full, sorted
    rows = 0
    for length in reversed(lengths):
        place = bisect_left(rooms, length)
        if place < len(rooms):
            room = rooms.pop(place) - length
        else:
            rows, room = rows + 1, maximum - length
        if room:
            insort(rooms, room)
    return sum(lengths) / (rows * maximum) if rows else 0.0


def summarize(entries: Sequence[Entry], maximum: int, overlong: str = "truncate") -> Lengths:
    """The lengths in six numbers, at a maximum; quantiles are exact where the table is."""
    total = sum(count for _, _, count in entries)
    if not total:
        return Lengths()
    counted = list(accumulate(count for _, _, count in entries))

    def quantile(share: float) -> int:
        return entries[bisect_left(counted, min(total, int(share * total) + 1))][0]

    mean = round(sum(length * count for length, _, count in entries) / total, 1)
    at = cut(entries, maximum, overlong)
    cut_down = at.too_long if overlong == "truncate" else 0
    lost = at.answer_lost if overlong == "truncate" else 0
    return Lengths(mean=mean, p50=quantile(0.5), p95=quantile(0.95), max=entries[-1][0], truncated=cut_down, answer_lost=lost)


def histogram(entries: Sequence[Entry], bins: int, top: int) -> list[int]:
    """Samples by length in `bins` equal parts of 1…`top` tokens; what is longer counts into the last."""
    counts = [0] * bins
    for length, _, count in entries:
        counts[min(bins - 1, max(0, length - 1) * bins // max(1, top))] += count
    return counts


def _spread(entries: Sequence[Entry], most: int) -> list[int]:
    """At most `most` lengths, ascending, that stand for all: every n-th of them."""
    counted = list(accumulate(count for _, _, count in entries))
    total = counted[-1] if counted else 0
    chosen = range(total) if total <= most else (index * total // most for index in range(most))
    return [entries[bisect_left(counted, index + 1)][0] for index in chosen]


def _rounded(value: int, digits: int) -> int:
    step = 10 ** max(0, len(str(value)) - digits)
    return -(-value // step) * step
