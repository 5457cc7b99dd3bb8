"""Source → conversations in the chosen languages: the part of the road where everything is still text."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from tui_ft.data import language, oasst, rows, sources
from tui_ft.data.conversations import BadRow, Conversation, Ledger
from tui_ft.data.files import Row
from tui_ft.data.formats import Format, find_format, language_column
from tui_ft.errors import RequestError
from tui_ft.recipe.schema import Data
from tui_ft.text import one_line

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total or None): `read` counts rows, `tokenize` conversations."""

OTHER_LANGUAGE = "another language"
_DETECTION_ROWS = 100
_EVERY = 1000  # rows between two calls of a progress function


@dataclass(frozen=True)
class Reading:
    """All conversations of one split, and what was left out."""

    conversations: list[Conversation]
    ledger: Ledger
    languages: Counter[str]
    """Conversations by language before the choice of languages; empty where neither a column nor detection tells."""
    found: Format
    columns: list[str]
    first_rows: list[dict[str, Any]]
    name: str
    complete: bool
    """Whether every row of the source was read."""


def read(data: Data, *, split: str | None = None, seed: int = 0, limit: int | None = None, on_progress: Progress | None = None) -> Reading:
    """Read a split to its conversations; with `limit`, no more rows than that.

    Raises:
        RequestError: nothing readable there, no rows, or no format that fits (ConfigError).
    """
    source = sources.open_source(data, split)
    stream = source.read()
    start = list(islice(stream, _DETECTION_ROWS))
    readable = [row.values for row in start if row.values is not None]
    if not readable:
        raise _nothing(source.name, start)
    columns = sources.columns_of(readable)
    found = find_format(readable, data)
    column = language_column(data, columns)
    ledger = Ledger()
    whole = chain(start, stream)
    counted = _counted(islice(whole, limit) if limit else whole, source.total, on_progress)
    if found.name == "oasst":
        chosen = {"lang": column} if column and data.language_column != "auto" else {}
        every: Iterable[Conversation] = oasst.conversations(counted, replace(found, columns={**found.columns, **chosen}), data.oasst, ledger)
    else:
        every = _conversations(counted, found, column, ledger)
    languages: Counter[str] = Counter()
    if data.language_column == "detect":
        every = (replace(conversation, languages=()) for conversation in every)
    by_text = data.language_column == "detect" or (column is None and found.name != "oasst" and bool(data.languages))
    kept = list(language.keep(every, data.languages, read_text=by_text, counts=languages, on_dropped=lambda it: _other_language(it, ledger)))
    complete = limit is None or next(whole, None) is None
    if data.max_rows is not None and len(kept) > data.max_rows:
        ledger.drop("beyond max_rows", len(kept) - data.max_rows)
        kept = [kept[index] for index in sorted(random.Random(seed).sample(range(len(kept)), data.max_rows))]
    return Reading(kept, ledger, languages, found, columns, readable, source.name, complete)


def rows_up_to(data: Data, most: int) -> int:
    """How many rows the source has, counting no further than `most`: tells a small source from a large one at little cost."""
    source = sources.open_source(data)
    return source.total if source.total is not None else sum(1 for _ in islice(source.read(), most))


def check_bad_rows(ledger: Ledger, data: Data) -> None:
    """Refuse a source with too many bad rows, naming rows and reasons.

    Raises:
        RequestError: the share of bad rows is above `data.max_bad_rows`.
    """
    if ledger.bad > data.max_bad_rows * max(ledger.rows, 1):
        bad = {reason: places for reason, places in ledger.samples.items() if reason in ledger.bad_reasons}
        listed = [f"{reason}: {ledger.dropped[reason]}\n    " + "\n    ".join(places) for reason, places in bad.items()]
        share = ledger.bad / max(ledger.rows, 1)
        raise RequestError(
            f"{ledger.bad:,} of {ledger.rows:,} rows are unusable ({share:.1%}, allowed {data.max_bad_rows:.1%})\n  " + "\n  ".join(listed),
            "Mend the rows, map the columns with data.columns, or raise data.max_bad_rows.",
        )


def _nothing(name: str, start: list[Row]) -> RequestError:
    if start:
        return RequestError(f"{name} has no readable row; the first one, {start[0].place}, is {one_line(start[0].problem, 100)}")
    return RequestError(f"{name} is empty", "It holds no row.")


def _counted(stream: Iterable[Row], total: int | None, on_progress: Progress | None) -> Iterator[Row]:
    number = 0
    for number, row in enumerate(stream, 1):
        if on_progress and number % _EVERY == 0:
            on_progress("read", number, total)
        yield row
    if on_progress:
        on_progress("read", number, number)


def _conversations(stream: Iterable[Row], found: Format, column: str | None, ledger: Ledger) -> Iterator[Conversation]:
    convert = rows.reader(found)
    for row in stream:
        ledger.rows += 1
        try:
            if row.values is None:
                raise BadRow(row.problem)
            conversation = convert(row.values, row.place)
        except BadRow as problem:
            if problem.reason == rows.EMPTY_TEXT:  # corpora have empty lines by the thousand: nothing is wrong with them
                ledger.drop(problem.reason)
            else:
                ledger.drop_bad(problem, row.place, row.values)
            continue
        if column is not None:
            code = row.values.get(column)
            conversation = replace(conversation, languages=(language.fold(code) if isinstance(code, str) else language.UNKNOWN,))
        yield conversation


def _other_language(conversation: Conversation, ledger: Ledger) -> None:
    codes = ", ".join(conversation.languages) or language.UNKNOWN
    ledger.drop(OTHER_LANGUAGE, sample=f"{conversation.origin} [{codes}]: {conversation.text(200)}")
