"""Source → conversations in the chosen languages: the part of the road where everything is still text."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import xxhash

from tui_ft.data import language, oasst, rows, sources
from tui_ft.data.conversations import BadRow, Conversation, Ledger, features
from tui_ft.data.files import Row
from tui_ft.data.formats import Format, find_format, language_column
from tui_ft.data.language import Detector
from tui_ft.data.oasst import TreeStatistics
from tui_ft.data.sources import Source
from tui_ft.errors import ChoiceError, RequestError
from tui_ft.recipe.schema import Data
from tui_ft.text import one_line

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, rows done, rows in all or None): `languages` while languages are detected, `tokenize` while samples are made."""

OTHER_LANGUAGE = "another language"
BEYOND = "beyond max_rows"
_DETECTION_ROWS = 100
_EVERY = 500  # rows between two calls of a progress function
_BATCH = 256


@dataclass
class Reading:
    """One split on its way to conversations. Its counts are whole once `conversations` has been read to its end."""

    data: Data
    source: Source
    found: Format
    column: str | None
    """The column that names a row's language; None where the text must tell, or nobody asks."""
    columns: list[str]
    first_rows: list[dict[str, Any]]
    confidence: float
    """Share of the first rows that read without fault in the format found, 0 to 1."""
    limit: int | None = None
    """Read no more rows than that."""
    complete: bool = True
    """Whether every row of the source was read."""
    ledger: Ledger = field(default_factory=Ledger)
    languages: Counter[str] = field(default_factory=Counter)
    """Conversations by language before the choice of languages; empty where neither a column nor detection tells."""
    trees: TreeStatistics = field(default_factory=TreeStatistics)

    @property
    def by_text(self) -> bool:
        """The languages are detected: as asked for, or because some are chosen and nothing names them."""
        return self.data.language_column == "detect" or (bool(self.data.languages) and not self._named)

    @property
    def language_source(self) -> str:
        """What tells the languages, in words; empty where nothing does."""
        return "detected" if self.by_text else f"column {self.column or 'lang'}" if self._named else ""

    @property
    def _named(self) -> bool:
        return self.column is not None or self.found.name == "oasst"

    def conversations(self, seed: int = 0, on_progress: Progress | None = None) -> Iterator[Conversation]:
        """All that is kept, in the order of the source. To be read once.

        Where languages must be detected in all rows, that is a pass of its own before, with its own progress; where `data.max_rows` takes
        fewer than there are, another one counts them. So memory never holds more than a batch.
        """
        total = self._total() if on_progress else None
        detector = self._detector(total, on_progress) if self.by_text else None
        chosen = self._drawn(detector, seed)
        for number, conversation in enumerate(self._kept(detector, total, on_progress)):
            if chosen is None or number in chosen:
                yield conversation
            else:
                self.ledger.drop(BEYOND)

    def _total(self) -> int | None:
        there_are = self.source.count()
        return min(self.limit, there_are or self.limit) if self.limit else there_are

    def _drawn(self, detector: Detector | None, seed: int) -> set[int] | None:
        """The places of `data.max_rows` conversations among those that are kept; None where all of them are taken."""
        most = self.data.max_rows
        there_are = sum(1 for _ in self._again()._kept(detector, None, None)) if most is not None else 0
        return set(random.Random(seed).sample(range(there_are), most)) if most is not None and there_are > most else None

    def _again(self) -> Reading:
        """The same with counts of its own, for a pass that only looks."""
        return replace(self, ledger=Ledger(), languages=Counter(), trees=TreeStatistics())

    def _kept(self, detector: Detector | None, total: int | None, on_progress: Progress | None) -> Iterator[Conversation]:
        def dropped(conversation: Conversation, words: str) -> None:
            self.ledger.drop(OTHER_LANGUAGE, sample=f"{conversation.origin} [{words}]: {conversation.text(200)}")

        every = self._every("tokenize", total, on_progress)
        return language.keep(every, self.data.languages, detector=detector, counts=self.languages, on_dropped=dropped)

    def _every(self, stage: str, total: int | None, on_progress: Progress | None) -> Iterator[Conversation]:
        """The conversations of all languages, each with those that its data name."""
        stream = self.source.read()
        counted = _counted(islice(stream, self.limit) if self.limit else stream, stage, total, on_progress)
        if self.found.name == "oasst":
            named = {"lang": self.column} if self.column and self.data.language_column != "auto" else {}
            found = replace(self.found, columns={**self.found.columns, **named})
            made: Iterable[Conversation] = oasst.conversations(counted, found, self.data.oasst, self.ledger, self.trees)
        else:
            made = _conversations(counted, self.found, self.column, self.ledger)
        for conversation in made:
            for feature in features(conversation):
                self.ledger.note(feature, conversation.origin)
            yield replace(conversation, languages=()) if self.data.language_column == "detect" else conversation
        self.complete = self.limit is None or next(stream, None) is None

    def _detector(self, total: int | None, on_progress: Progress | None) -> Detector:
        """One that has judged every text of the dataset, now or at an earlier time; of a sample, one that begins anew."""
        if self.limit:
            return Detector()
        asked = [self.source.identity(), self.found.name, sorted(self.found.columns.items()), self.data.oasst, language.CHARACTERS]
        detector = Detector(Detector.file(xxhash.xxh3_128_hexdigest(json.dumps(asked).encode())))
        if not detector.knows_all:
            every = self._again()._every("languages", total, on_progress)
            while batch := list(islice(every, _BATCH)):
                detector.judge([language.text_of(conversation) for conversation in batch])
            detector.save()
        return detector


def open_reading(data: Data, split: str | None = None, limit: int | None = None) -> Reading:
    """Look at the first rows of a split (default: `data.split`), and find out how to read it.

    Raises:
        RequestError: nothing readable there, no rows, or no format that fits (ConfigError; ChoiceError where a person can tell).
    """
    source = sources.open_source(data, split)
    start = list(islice(source.read(), _DETECTION_ROWS))
    readable = [row.values for row in start if row.values is not None]
    if not readable:
        raise _nothing(source.name, start)
    columns = sources.columns_of(readable)
    try:
        found, column = find_format(readable, data), language_column(data, columns)
    except ChoiceError as error:
        error.columns, error.rows = columns, readable
        raise
    return Reading(data, source, found, column, columns, readable, _confidence(start, found), limit)


def rows_up_to(source: Source, most: int) -> int:
    """How many rows the source has, counting no further than `most`: tells a small source from a large one at little cost."""
    return source.total if source.total is not None else sum(1 for _ in islice(source.read(), most))


def _confidence(start: Sequence[Row], found: Format) -> float:
    """Each row on its own; a nested tree counts as one."""
    ledger = Ledger()
    if found.name == "oasst":
        for _ in oasst.conversations(start, found, "all", ledger, TreeStatistics()):
            pass
        return 1 - min(1.0, ledger.bad / max(1, ledger.rows))
    fit = sum(1 for _ in _conversations(start, found, None, ledger))
    return (fit + ledger.dropped[rows.EMPTY_TEXT]) / len(start)


def _nothing(name: str, start: list[Row]) -> RequestError:
    if start:
        return RequestError(f"{name} has no readable row; the first one, {start[0].place}, is {one_line(start[0].problem, 100)}")
    return RequestError(f"{name} is empty", "It holds no row.")


def _counted(stream: Iterable[Row], stage: str, total: int | None, on_progress: Progress | None) -> Iterator[Row]:
    number = 0
    for number, row in enumerate(stream, 1):
        if on_progress and number % _EVERY == 0:
            on_progress(stage, number, total if total is None else max(total, number))
        yield row
    if on_progress:
        on_progress(stage, number, number)


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
