"""What became of the rows of one split on their way to samples: counted while it is read, told in every report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from tui_ft.data import lengths
from tui_ft.data.lengths import Entry
from tui_ft.data.oasst import TreeStatistics
from tui_ft.data.reading import Reading
from tui_ft.data.store import Numbers

if TYPE_CHECKING:
    import numpy as np

_SAMPLES = 3


class Facts(BaseModel):
    """One split, read as far as `complete` says, before anything is cut to a length."""

    source: str
    complete: bool = Field(description="Every row of the source was read.")
    format: str
    format_reason: str
    confidence: float = Field(description="Share of the first rows that read without fault in this format, 0 to 1.")
    column_parts: dict[str, str]
    columns: list[str]
    notices: list[str]
    rows: int = Field(description="Rows read (messages, for oasst).")
    samples: int = Field(description="What can be learned from, before cutting.")
    dropped: dict[str, int]
    noted: dict[str, int] = Field(description="What is odd and used all the same.")
    places: dict[str, list[str]] = Field(description="For a reason to drop or note: the first places, with an excerpt; harmless to show.")
    bad_rows: int
    bad_reasons: list[str]
    languages: dict[str, int]
    language_source: str
    trees: TreeStatistics | None
    length_table: list[Entry]
    duplicates: int = Field(description="Samples that repeat an earlier one exactly.")
    duplicate_places: list[str]
    without_stop: int = Field(description="Conversations in which no end of a turn is learned.")


def facts_of(reading: Reading, numbers: Numbers, origins: Iterable[str]) -> Facts:
    """The facts of a split that was read to its end; `origins` are the samples' places in the source."""
    import numpy as np

    ledger, found = reading.ledger, reading.found
    repeated, places = _duplicates(numbers.contents, origins)
    return Facts(
        source=reading.source.name,
        complete=reading.complete,
        format=found.name,
        format_reason=found.reason,
        confidence=reading.confidence,
        column_parts=found.columns,
        columns=reading.columns,
        notices=list(found.notices),
        rows=ledger.rows,
        samples=len(numbers.lengths),
        dropped=dict(ledger.dropped),
        noted=dict(ledger.noted),
        places=ledger.samples,
        bad_rows=ledger.bad,
        bad_reasons=sorted(ledger.bad_reasons),
        languages=dict(reading.languages.most_common()),
        language_source=reading.language_source,
        trees=reading.trees.model_copy(update={"mean_depth": round(reading.trees.mean_depth, 2)}) if reading.trees.trees else None,
        length_table=lengths.table(zip(numbers.lengths.tolist(), numbers.firsts.tolist(), strict=True)),
        duplicates=repeated,
        duplicate_places=places,
        without_stop=int(np.count_nonzero(numbers.stops >= numbers.lengths)),
    )


def _duplicates(contents: np.ndarray, origins: Iterable[str]) -> tuple[int, list[str]]:
    """How many samples repeat an earlier one, and the first few of them in words."""
    import numpy as np

    _, firsts, inverse = np.unique(contents, return_index=True, return_inverse=True)
    earlier = firsts[inverse]
    again = np.flatnonzero(earlier < np.arange(len(contents)))
    wanted = {int(place) for number in again[:_SAMPLES] for place in (number, earlier[number])}
    names = {number: origin for number, origin in enumerate(origins) if number in wanted} if wanted else {}
    return len(again), [f"{names[int(number)]} repeats {names[int(earlier[number])]}" for number in again[:_SAMPLES]]
