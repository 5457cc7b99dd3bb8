"""A recipe's data, ready to train on: tokens and labels of the training and the validation side, with a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field

from tui_ft.data import lengths, reading, split
from tui_ft.data.lengths import Lengths
from tui_ft.data.reading import Progress, Reading
from tui_ft.data.samples import Counts, Sample, blocks, encode
from tui_ft.data.tokenizer import stop_token_ids
from tui_ft.errors import RequestError
from tui_ft.recipe.schema import PLAIN_TEXT, Recipe

_CHUNK = 1000  # samples an Arrow chunk: one list column must stay below 2³¹ values


class Report(BaseModel):
    """What became of the rows."""

    source: str = ""
    format: str = ""
    format_reason: str = ""
    rows: int = Field(0, description="Rows read (messages, for oasst).")
    kept: int = Field(0, description="Samples for training and validation together.")
    dropped: dict[str, int] = Field(default_factory=dict, description="What was left out, by reason, in rows or conversations.")
    dropped_samples: dict[str, list[str]] = Field(default_factory=dict, description="For bad rows and other languages: places with an excerpt.")
    bad_rows: int = 0
    languages: dict[str, int] = Field(default_factory=dict, description="Conversations by language before the choice; empty where nothing tells.")
    lengths: Lengths = Field(default_factory=Lengths)
    train_samples: int = 0
    validation_samples: int = 0
    tokens: int = Field(0, description="Tokens of the training samples.")
    learned_tokens: int = Field(0, description="Of these, tokens that enter the loss.")
    warnings: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    train: Any
    """`datasets.Dataset` with the columns `input_ids` and `labels` (-100: not learned), unpadded, in the order of the source."""
    validation: Any | None
    report: Report
    stop_token_ids: list[int]
    """Where generation ends: the tokens that end an answer, and eos."""
    fingerprint: str
    """Hash of every sample's ids and labels in order, training side first."""
    mean_tokens: float
    """Mean length of a training sample, after cutting."""


@dataclass
class Side:
    """One split on its way: shared by preview and preparation."""

    read: Reading
    counts: Counts = field(default_factory=lambda: Counts([]))
    samples: list[Sample] = field(default_factory=list)


def prepare(recipe: Recipe, tokenizer: Any, on_progress: Progress | None = None) -> Prepared:
    """Read, render, tokenize, mask, cut and split the recipe's data. `tokenizer` comes from `tokenizer.load`.

    The same recipe, files and seed give the same samples in the same order. Everything is held in memory: about 8 bytes a token.

    Raises:
        RequestError: the source or its format is wrong, too many bad rows, or nothing that could be learned.
    """
    data = recipe.data
    side = load_side(recipe, tokenizer, on_progress=on_progress)
    reading.check_bad_rows(side.read.ledger, data)
    if isinstance(data.validation, str):
        other = load_side(recipe, tokenizer, split_name=data.validation, on_progress=on_progress)
        reading.check_bad_rows(other.read.ledger, data)
        if not other.samples:
            raise RequestError(f"the validation split {data.validation} has no usable sample{_reasons(other)}")
        train, validation = side.samples, other.samples
    else:
        marks = split.for_validation([sample.group for sample in side.samples], data.validation, recipe.train.seed)
        train = [sample for sample, held in zip(side.samples, marks, strict=True) if not held]
        validation = [sample for sample, held in zip(side.samples, marks, strict=True) if held]
    if _splits(recipe):
        train, validation = list(blocks(train, recipe.prompt.max_length)), list(blocks(validation, recipe.prompt.max_length))
    refuse_nothing(side, train)
    fingerprint = _fingerprint(train, validation)
    tokens = sum(len(sample.ids) for sample in train)
    report = report_of(recipe, side)
    report.kept = len(train) + len(validation)
    report.train_samples, report.validation_samples, report.tokens = len(train), len(validation), tokens
    report.learned_tokens = sum(int(sample.learned.sum()) for sample in train)
    if data.validation and not validation:
        report.warnings.append("no validation: there are fewer than two groups of conversations to divide")
    return Prepared(
        train=_dataset(train, f"{fingerprint}-train"),
        validation=_dataset(validation, f"{fingerprint}-validation") if validation else None,
        report=report,
        stop_token_ids=stop_token_ids(tokenizer),
        fingerprint=fingerprint,
        mean_tokens=tokens / len(train),
    )


def load_side(
    recipe: Recipe,
    tokenizer: Any,
    *,
    split_name: str | None = None,
    limit: int | None = None,
    keep_pieces: int = 0,
    on_progress: Progress | None = None,
) -> Side:
    """One split, read and tokenized; documents not yet cut into blocks."""
    read = reading.read(recipe.data, split=split_name, seed=recipe.train.seed, limit=limit, on_progress=on_progress)
    side = Side(read)
    side.samples = list(
        encode(read.conversations, tokenizer, recipe.prompt, read.ledger, side.counts, keep_pieces=keep_pieces, on_progress=on_progress)
    )
    return side


def report_of(recipe: Recipe, side: Side) -> Report:
    """The report on one side, without what only the split tells."""
    read, counts, prompt = side.read, side.counts, recipe.prompt
    ledger = read.ledger
    warnings = list(read.found.notices)
    if read.found.name == PLAIN_TEXT and prompt.template != PLAIN_TEXT:
        warnings.append(f"plain text has no turns: it is learned as it is, and prompt.template {prompt.template} only says how the model will chat")
    summary = lengths.summarize(lengths.table(counts.lengths), prompt.max_length, prompt.overlong)
    if summary.truncated:
        lost = f", {summary.answer_lost} of them lost their whole answer and are dropped" if summary.answer_lost else ""
        warnings.append(f"{summary.truncated} of {len(counts.lengths)} samples are cut to {prompt.max_length} tokens{lost}")
    if ledger.bad:
        warnings.append(f"{ledger.bad} unusable rows are left out")
    return Report(
        source=read.name,
        format=read.found.name,
        format_reason=read.found.reason,
        rows=ledger.rows,
        kept=len(side.samples),
        dropped=dict(ledger.dropped),
        dropped_samples=ledger.samples,
        bad_rows=ledger.bad,
        languages=dict(read.languages.most_common()),
        lengths=summary,
        warnings=warnings,
    )


def refuse_nothing(side: Side, train: Sequence[Sample]) -> None:
    """Refuse a training side without samples.

    Raises:
        RequestError: naming what took them.
    """
    if not train:
        hint = "Look at `tui-ft preview`; the languages, prompt.max_length and data.columns are the usual causes."
        raise RequestError(f"{side.read.name}: no sample is left to train on{_reasons(side)}", hint)


def _splits(recipe: Recipe) -> bool:
    return recipe.prompt.overlong == "split"


def _reasons(side: Side) -> str:
    dropped = side.read.ledger.dropped
    return f" ({side.read.ledger.rows} rows; " + ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common(5)) + ")" if dropped else ""


def _dataset(samples: Sequence[Sample], fingerprint: str) -> Any:
    import datasets
    import numpy as np
    import pyarrow

    def column(arrays: Iterable[Any], part: Sequence[Sample]) -> pyarrow.Array:
        offsets = np.concatenate([[0], np.cumsum([len(sample.ids) for sample in part])]).astype(np.int32)
        return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(np.concatenate(list(arrays))))

    chunks = [samples[start : start + _CHUNK] for start in range(0, len(samples), _CHUNK)]
    table = pyarrow.table(
        {
            "input_ids": pyarrow.chunked_array([column((sample.ids for sample in part), part) for part in chunks]),
            "labels": pyarrow.chunked_array([column((sample.labels for sample in part), part) for part in chunks]),
        }
    )
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=fingerprint)  # else it would hash a copy of everything


def _fingerprint(*sides: Sequence[Sample]) -> str:
    import xxhash

    state = xxhash.xxh3_128()
    for side in sides:
        state.update(len(side).to_bytes(8, "little"))
        for sample in side:
            state.update(len(sample.ids).to_bytes(8, "little") + sample.ids.tobytes() + sample.labels.tobytes())
    return state.hexdigest()
