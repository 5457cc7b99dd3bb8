"""What a recipe's data will be to the model, looked at before anything is trained: rows, languages, lengths, samples token by token.

As a child process (`python -m tui_ft.data.preview [-n 3] [--exact] < recipe.json`) it prints the JSON for the terminal, which itself
imports no tokenizer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tui_ft.data import prepare, reading, samples, tokenizer
from tui_ft.data.lengths import Entry, Lengths
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.findings import Finding
from tui_ft.recipe.files import validate
from tui_ft.recipe.schema import Recipe
from tui_ft.text import one_line

WHOLE_ROWS = 5000
"""Up to so many rows are all read; a larger source is judged by its first `SAMPLE_ROWS`."""
SAMPLE_ROWS = 1000
_CELL = 300  # characters shown of one cell of a row


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


class TreeStatistics(BaseModel):
    """What oasst message trees hold, before anything is left out."""

    trees: int = 0
    messages: int = 0
    mean_depth: float = Field(0.0, description="Messages on the longest path of a tree, on average.")
    max_depth: int = 0
    languages: dict[str, int] = Field(default_factory=dict, description="Trees by the language of their first message.")
    states: dict[str, int] = Field(default_factory=dict, description="Trees by tree_state, where the data name one.")


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


def preview(recipe: Recipe, n: int = 3, exact: bool = False, shelf: Path | None = None) -> Preview:
    """The first `n` samples and the counts, from a sample of a large source unless `exact`. A tokenizer folder is enough, no weights.

    With `shelf`, up to `SHELVED` samples are also written there, to be walked through.

    Raises:
        RequestError: the source, its format, the tokenizer or the template cannot be used at all. What only a start would refuse
            (too many bad rows, nothing left to learn) is told in `refusals` instead.
    """
    whole = exact or reading.rows_up_to(recipe.data, WHOLE_ROWS + 1) <= WHOLE_ROWS
    loaded = tokenizer.load(recipe.model, recipe.prompt)
    blocks = recipe.prompt.overlong == "split"
    texts = n * recipe.prompt.max_length if blocks else n  # a document has at least one token, so that so many fill n blocks
    side = prepare.load_side(recipe, loaded, limit=None if whole else SAMPLE_ROWS, keep_pieces=max(texts, 0))
    cut = list(samples.blocks(side.samples, recipe.prompt.max_length)) if blocks else side.samples
    report = prepare.report_of(recipe, side)
    return Preview(
        sampled=None if side.read.complete else report.rows,
        kept=len(cut),
        samples=[_shown(sample) for sample in cut[: max(n, 0)] if sample.pieces],
        refusals=list(_refusals(recipe, side)),
        column_parts=side.read.found.columns,
        columns=side.read.columns,
        rows_shown=[{one_line(key, 60): one_line(value, _CELL) for key, value in row.items()} for row in side.read.first_rows[: max(n, 0)]],
        **report.model_dump(include={"rows", "dropped", "languages", "lengths", "warnings", "source", "format", "format_reason", "dropped_samples"}),
    )


def _refusals(recipe: Recipe, side: prepare.Side) -> list[str]:
    found = []
    for check in (lambda: reading.check_bad_rows(side.read.ledger, recipe.data), lambda: prepare.refuse_nothing(side, side.samples)):
        try:
            check()
        except RequestError as error:
            found.append("\n".join(error.lines()))
    return found


def _shown(sample: samples.Sample) -> PreviewSample:
    tokens = [
        Token(id=int(number), text=text, learned=bool(learned))
        for number, text, learned in zip(sample.ids, sample.pieces, sample.learned, strict=True)
    ]
    return PreviewSample(text="".join(sample.pieces), tokens=tokens)


def main(arguments: list[str] | None = None) -> int:
    """The child process: recipe JSON on stdin, preview JSON on stdout; errors as JSON too, with their exit code."""
    parser = argparse.ArgumentParser(prog="python -m tui_ft.data.preview")
    parser.add_argument("-n", type=int, default=3)
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args(arguments)
    code = 0
    answer: dict[str, Any]
    with contextlib.redirect_stdout(sys.stderr):  # libraries that print must not spoil the JSON
        try:
            answer = preview(_recipe(sys.stdin.read()), options.n, options.exact).model_dump(mode="json")
        except TuiFtError as error:
            answer, code = {"error": error.message, "hint": error.hint}, error.exit_code
    print(json.dumps(answer))  # ASCII: no foreign character reaches a terminal unescaped
    return code


def _recipe(text: str) -> Recipe:
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise RequestError(f"the recipe on stdin is not JSON: {one_line(error, 100)}") from None
    return validate(tree)


if __name__ == "__main__":
    sys.exit(main())
