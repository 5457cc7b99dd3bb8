"""What a recipe's data will be to the model, looked at before anything is trained: rows, languages, lengths, samples token by token.

As a child process (`python -m tui_ft.data.preview [-n 3] [--exact] < recipe.json`) it prints the JSON for the terminal, which itself
imports no tokenizer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tui_ft import collector
from tui_ft.data import checks, lengths, prepare, reading, samples, tokenizer
from tui_ft.data.encoding import Encoder
from tui_ft.data.facts import facts_of
from tui_ft.data.lengths import Entry, Lengths
from tui_ft.data.oasst import TreeStatistics
from tui_ft.data.reading import Progress
from tui_ft.data.samples import Sample
from tui_ft.data.store import Numbers
from tui_ft.data.templates import NoTemplateError
from tui_ft.errors import ChoiceError, RequestError, TuiFtError
from tui_ft.findings import Finding
from tui_ft.recipe.files import validate
from tui_ft.recipe.schema import Prompt, Recipe
from tui_ft.text import one_line

WHOLE_ROWS = 5000
"""Up to so many rows are all read; a larger source is judged by its first `SAMPLE_ROWS`."""
SAMPLE_ROWS = 1000
SHELVED = 400
"""So many samples can be walked through."""
_SHELF_TOKENS = 400_000  # written out in half a second
_STANDS_IN = "chatml"
"""The template of a look at the data of a base model that is to use a template it has not; its samples are not shown."""
_CELL = 300  # characters shown of one cell of a row
_BETWEEN_LINES = 0.2  # seconds


class Token(BaseModel):
    id: int
    text: str = Field(description="The characters that it adds; joined, the tokens' texts are the sample's text.")
    learned: bool
    kind: str = Field("", description="bos, eos, end (ends a turn), pad or special; empty for ordinary text.")


class PreviewSample(BaseModel):
    text: str = Field(description="The rendered text as the model sees it, cut where training cuts it. Foreign text: show it through text.visible.")
    tokens: list[Token]
    origin: str = Field("", description="Where it comes from, for a person: `train.jsonl:12`, `tree 5af2…`. Foreign text.")
    length: int = Field(0, description="Tokens before anything was cut.")


class Shelved(BaseModel):
    """Where a sample stands in the shelf file, with what is needed to choose it."""

    offset: int = Field(description="Bytes from the start of the file to its line, the JSON of a PreviewSample.")
    size: int = Field(description="Bytes of the line.")
    tokens: int = Field(description="Tokens after cutting.")
    learned: int
    truncated: bool


class Preview(BaseModel):
    sampled: int | None = Field(None, description="The number of rows looked at, where the source has more; None: all were.")
    rows: int
    kept: int = Field(description="Samples that would train or validate, of the rows looked at.")
    dropped: dict[str, int]
    languages: dict[str, int]
    lengths: Lengths
    samples: list[PreviewSample]
    warnings: list[str]
    refusals: list[str] = Field(default_factory=list, description="Why a run would be refused; empty: it would start.")
    source: str = ""
    format: str = ""
    format_reason: str = ""
    column_parts: dict[str, str] = Field(default_factory=dict, description="Which column plays which part of the conversation.")
    columns: list[str] = Field(default_factory=list)
    rows_shown: list[dict[str, str]] = Field(default_factory=list, description="The first rows, each cell on one line, harmless to show.")
    dropped_samples: dict[str, list[str]] = Field(default_factory=dict)
    format_confidence: float = Field(1.0, description="Share of the first rows that read without fault in this format, 0 to 1.")
    language_source: str = Field("", description="What tells the languages: `column NAME`, `detected`, or empty where nothing does.")
    length_table: list[Entry] = Field(default_factory=list, description="For data.lengths: (tokens, first learned token, samples) before cutting.")
    duplicates: int = Field(0, description="Samples that repeat an earlier one exactly.")
    trees: TreeStatistics | None = None
    findings: list[Finding] = Field(default_factory=list, description="Everything to know before a start, errors first.")
    shelf: list[Shelved] = Field(default_factory=list, description="The samples written to the file that --shelf names, in their order.")


def preview(recipe: Recipe, n: int = 3, exact: bool = False, shelf: Path | None = None, on_progress: Progress | None = None) -> Preview:
    """The first `n` samples and the counts, from a sample of a large source unless `exact`. A tokenizer folder is enough, no weights.

    With `shelf`, the samples are also written there, up to `SHELVED` of them, to be walked through. What `exact` has prepared of a large
    source is kept, and a run on the same recipe need not do it again.

    Raises:
        RequestError: the source, its format, the tokenizer or the template cannot be used at all (ChoiceError: a person can tell how). What
            only a start would refuse (too many bad rows, nothing left to learn) is told in `refusals` instead.
    """
    read = reading.open_reading(recipe.data)
    small = reading.rows_up_to(read.source, WHOLE_ROWS + 1) <= WHOLE_ROWS
    read.limit = None if small else SAMPLE_ROWS
    recipe, loaded, unfit = _loaded(recipe)
    progress = on_progress if small else None  # a thousand rows are looked at in a second
    encoder = Encoder(loaded, recipe.prompt)
    every = samples.encode(read.conversations(recipe.train.seed, progress), encoder, read.ledger)
    walked, numbers = _looked_at(every, max(_SHELF_TOKENS, n * recipe.prompt.max_length))
    facts = prepare.encoded(recipe, loaded, on_progress=on_progress).facts if exact and not small else facts_of(read, *numbers)
    found = checks.findings(recipe, facts, loaded)
    if unfit:
        found = [unfit, *(finding for finding in found if not finding.where.startswith("prompt"))]
    report = prepare.report_of(recipe, facts, found)
    cut = _cut([] if unfit else walked, recipe.prompt)
    if recipe.prompt.overlong == "split":
        report.kept = len(samples.blocks(sum(length * count for length, _, count in facts.length_table), recipe.prompt.max_length))
    return Preview(
        sampled=None if facts.complete else facts.rows,
        samples=[_shown(item, encoder) for item in islice(cut(), max(n, 0))],
        shelf=write_shelf(shelf, (_shown(item, encoder) for item in islice(cut(), SHELVED))) if shelf else [],
        refusals=[str(problem) for problem in checks.problems(found)],
        rows_shown=shown_rows(read.first_rows, n),
        length_table=[] if unfit else lengths.coarse(facts.length_table),
        format_confidence=facts.confidence,
        **facts.model_dump(include={"column_parts", "columns", "language_source", "trees"}),
        **report.model_dump(
            include={
                *("rows", "kept", "dropped", "dropped_samples", "languages", "lengths", "warnings"),
                *("source", "format", "format_reason", "duplicates", "findings"),
            }
        ),
    )


def _loaded(recipe: Recipe) -> tuple[Recipe, Any, Finding | None]:
    """The tokenizer of a recipe. A base model that is to use a template it has not, the commonest slip, must not hide rows, languages and
    format: another template stands in for it in the recipe, and the finding says so."""
    try:
        return recipe, tokenizer.load(recipe.model, recipe.prompt), None
    except NoTemplateError as error:
        prompt = recipe.prompt.model_copy(update={"template": _STANDS_IN})
        unfit = Finding("error", "prompt.template", error.message, error.hint)
        return recipe.model_copy(update={"prompt": prompt}), tokenizer.load(recipe.model, prompt), unfit


def shown_rows(rows: list[dict[str, Any]], n: int) -> list[dict[str, str]]:
    """The first `n` rows, each cell on one line, harmless to show."""
    return [{one_line(key, 60): one_line(str(value)[: 4 * _CELL], _CELL) for key, value in row.items()} for row in rows[: max(n, 0)]]


def _looked_at(every: Iterable[Sample], tokens: int) -> tuple[list[Sample], tuple[Numbers, list[str]]]:
    """The first samples, of about so many tokens, and the numbers and places of all: a token of a sample takes some hundred bytes."""
    walked: list[Sample] = []
    numbers: list[tuple[int, ...]] = []
    origins: list[str] = []
    for sample in every:
        if tokens > 0:
            walked.append(sample)
            tokens -= len(sample.encoded.ids)
        numbers.append((len(sample.encoded.ids), sample.first, sample.stop, sample.group, sample.content))
        origins.append(sample.origin)
    return walked, (Numbers.of(numbers), origins)


@dataclass(frozen=True)
class _Cut:
    """A sample as it trains."""

    ids: list[int]
    learned: list[bool]
    pieces: list[str]
    origin: str
    length: int


def _cut(whole: list[Sample], prompt: Prompt) -> Callable[[], Iterator[_Cut]]:
    """The samples as training cuts them, made one by one."""
    import numpy as np

    def singly() -> Iterator[_Cut]:
        sizes = np.array([len(sample.encoded.ids) for sample in whole], dtype=np.int64)
        firsts = np.array([sample.first for sample in whole], dtype=np.int64)
        for sample, stop in zip(whole, samples.cuts(sizes, firsts, prompt).tolist(), strict=True):
            if stop:
                encoded = sample.encoded
                yield _Cut(encoded.ids[:stop].tolist(), encoded.learned[:stop].tolist(), encoded.pieces(stop), sample.origin, len(encoded.ids))

    def in_blocks() -> Iterator[_Cut]:
        ids = [number for sample in whole for number in sample.encoded.ids.tolist()]
        learned = [flag for sample in whole for flag in sample.encoded.learned.tolist()]
        pieces = [piece for sample in whole for piece in sample.encoded.pieces(len(sample.encoded.ids))]
        for number, (begin, end) in enumerate(samples.blocks(len(ids), prompt.max_length), 1):
            yield _Cut(ids[begin:end], learned[begin:end], pieces[begin:end], f"block {number}", end - begin)

    return in_blocks if prompt.overlong == "split" else singly


def _shown(item: _Cut, encoder: Encoder) -> PreviewSample:
    tokens = [
        Token(id=number, text=text, learned=flag, kind=encoder.kind(number))
        for number, text, flag in zip(item.ids, item.pieces, item.learned, strict=True)
    ]
    return PreviewSample(text="".join(item.pieces), tokens=tokens, origin=item.origin, length=item.length)


def write_shelf(path: Path, shown: Iterable[PreviewSample]) -> list[Shelved]:
    """Write samples to be walked through, a line of JSON each, and tell where each stands; no more than `_SHELF_TOKENS` in all."""
    entries: list[Shelved] = []
    offset = tokens = 0
    with path.open("wb") as file:
        for sample in shown:
            line = sample.model_dump_json().encode() + b"\n"
            learned = sum(token.learned for token in sample.tokens)
            truncated = sample.length > len(sample.tokens)
            entries.append(Shelved(offset=offset, size=len(line), tokens=len(sample.tokens), learned=learned, truncated=truncated))
            offset += file.write(line)
            tokens += len(sample.tokens)
            if tokens > _SHELF_TOKENS:
                break
    return entries


def main(arguments: list[str] | None = None) -> int:
    """The child process: recipe JSON on stdin, preview JSON as the last line on stdout; errors as JSON too, with their exit code.

    Before it, while the work goes on: lines of `{"progress": {"stage", "done", "total"}}`, some a second.
    """
    parser = argparse.ArgumentParser(prog="python -m tui_ft.data.preview")
    parser.add_argument("-n", type=int, default=3)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--shelf", type=Path)
    options = parser.parse_args(arguments)
    collector.relax()
    code = 0
    answer: dict[str, Any]
    with contextlib.redirect_stdout(sys.stderr):  # libraries that print must not spoil the JSON
        try:
            recipe = _recipe(sys.stdin.read())
            found = preview(recipe, options.n, options.exact, options.shelf, _told_on(sys.__stdout__))
            answer = found.model_dump(mode="json")
        except TuiFtError as error:
            answer, code = {"error": error.message, "hint": error.hint}, error.exit_code
            if isinstance(error, ChoiceError):
                answer |= {"choices": {"part": error.part, "columns": error.choices}, "format": error.format}
                answer |= {"columns": error.columns, "rows_shown": shown_rows(error.rows, options.n)}
    print(json.dumps(answer))  # ASCII: no foreign character reaches a terminal unescaped
    return code


def _told_on(file: Any) -> Progress:
    """Progress as lines of JSON, the first and the last of a stage and some between."""
    last = 0.0

    def tell(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > _BETWEEN_LINES:
            last = time.monotonic()
            print(json.dumps({"progress": {"stage": stage, "done": done, "total": total}}), file=file, flush=True)

    return tell


def _recipe(text: str) -> Recipe:
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise RequestError(f"the recipe on stdin is not JSON: {one_line(error, 100)}") from None
    return validate(tree)


if __name__ == "__main__":
    sys.exit(main())
