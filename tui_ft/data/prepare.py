"""A recipe's data, ready to train on: tokens and labels of the training and the validation side, with a report.

In two stages, each kept on disk under a hash of all that it was made of: whole samples, which depend on data, template and tokenizer;
and what a maximum length and a split make of them. So another length costs seconds, and a second start nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from tui_ft.data import cache, checks, lengths, reading, samples, split, store
from tui_ft.data.encoding import Encoder
from tui_ft.data.facts import Facts, facts_of
from tui_ft.data.lengths import Lengths
from tui_ft.data.reading import Progress, Reading
from tui_ft.data.tokenizer import stop_token_ids
from tui_ft.errors import ConfigError
from tui_ft.findings import Finding
from tui_ft.recipe.schema import Data, Recipe

if TYPE_CHECKING:
    import numpy as np

_FORMAT = "1"  # of the files; a new one makes old ones unknown
_WHOLE, _TRAIN, _VALIDATION, _TOLD = "samples.arrow", "train.arrow", "validation.arrow", "told.json"
_DOES_NOT_MATTER = {"source", "config", "split", "validation", "max_bad_rows"}
"""Settings of the data that do not change what a row becomes: where the rows come from is told by their own hash."""


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
    duplicates: int = Field(0, description="Samples that repeat an earlier one exactly.")
    findings: list[Finding] = Field(default_factory=list, description="Errors first. A run is refused while there is an error.")
    warnings: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    train: Any
    """`datasets.Dataset` with the columns `input_ids` and `labels` (-100: not learned), unpadded, in the order of the source, on disk."""
    validation: Any | None
    report: Report
    stop_token_ids: list[int]
    """Where generation ends: the tokens that end an answer, and eos."""
    fingerprint: str
    """Hash of every sample's ids and labels in order, training side first."""
    mean_tokens: float
    """Mean length of a training sample, after cutting."""


@dataclass(frozen=True)
class Split:
    """One split as whole samples, on disk."""

    key: str
    facts: Facts
    numbers: store.Numbers

    @property
    def path(self) -> Path:
        return cache.folder() / self.key / _WHOLE


def prepare(recipe: Recipe, tokenizer: Any, on_progress: Progress | None = None) -> Prepared:
    """Read, render, tokenize, mask, cut and split the recipe's data. `tokenizer` comes from `tokenizer.load`.

    The same recipe, files and seed give the same samples in the same order.

    Raises:
        ConfigError: the source or its format is wrong, too many bad rows, or something would be learned that must not be; all of it at once.
        TuiFtError: the disk is full.
    """
    data, prompt, seed = recipe.data, recipe.prompt, recipe.train.seed
    side = encoded(recipe, tokenizer, on_progress=on_progress)
    other = encoded(recipe, tokenizer, split_name=data.validation, on_progress=on_progress) if isinstance(data.validation, str) else None
    findings = checks.findings(recipe, side.facts, tokenizer)
    if other:
        findings += checks.of_validation(recipe, other.facts, tokenizer, _in_both(side, other))
    refuse(findings)
    key = _hash([side.key, other.key if other else None, prompt.max_length, prompt.overlong, data.validation, seed])
    if not cache.find(key):
        _write(recipe, key, side, other, findings, on_progress)
    folder = cache.folder() / key
    told = json.loads((folder / _TOLD).read_text(encoding="utf-8"))
    report, fingerprint = Report.model_validate({**told["report"], "source": side.facts.source}), told["fingerprint"]
    return Prepared(
        train=store.training_dataset(folder / _TRAIN, f"{fingerprint}-train"),
        validation=store.training_dataset(folder / _VALIDATION, f"{fingerprint}-validation") if report.validation_samples else None,
        report=report,
        stop_token_ids=stop_token_ids(tokenizer),
        fingerprint=fingerprint,
        mean_tokens=report.tokens / report.train_samples,
    )


def encoded(recipe: Recipe, tokenizer: Any, *, split_name: str | None = None, on_progress: Progress | None = None) -> Split:
    """One split as whole samples: from the cache, else read, rendered and tokenized now.

    Raises:
        RequestError: there is nothing readable.
        TuiFtError: the disk is full.
    """
    read = reading.open_reading(recipe.data, split_name)
    key = _key(recipe, tokenizer, read)
    folder = cache.find(key)
    if folder is None:
        with cache.making(key) as staged:
            path = staged / _WHOLE
            every = read.conversations(recipe.train.seed, on_progress)
            store.write_samples(path, samples.encode(every, Encoder(tokenizer, recipe.prompt), read.ledger))
            counted = store.numbers(path)
            facts = facts_of(read, counted, store.origins(path))
            (staged / _TOLD).write_text(facts.model_dump_json(), encoding="utf-8")
        folder = cache.folder() / key
    facts = Facts.model_validate_json((folder / _TOLD).read_text(encoding="utf-8"))
    facts = facts.model_copy(update={"source": read.source.name})  # the same rows may lie elsewhere now
    return Split(key, facts, store.numbers(folder / _WHOLE))


def _in_both(side: Split, other: Split) -> int:
    import numpy as np

    return int(np.count_nonzero(np.isin(other.numbers.contents, side.numbers.contents)))


def refuse(findings: list[Finding]) -> None:
    """Refuse what must not be trained on.

    Raises:
        ConfigError: every error among the findings.
    """
    problems = checks.problems(findings)
    if problems:
        raise ConfigError(problems)


def report_of(recipe: Recipe, facts: Facts, findings: list[Finding]) -> Report:
    """The report on one split, without what only its division tells."""
    prompt = recipe.prompt
    at = lengths.cut(facts.length_table, prompt.max_length, prompt.overlong)
    dropped = dict(facts.dropped)
    if prompt.overlong == "truncate" and at.answer_lost:
        dropped[samples.ANSWER_LOST] = at.answer_lost
    if prompt.overlong == "drop" and at.too_long:
        dropped[samples.TOO_LONG] = at.too_long
    return Report(
        kept=at.kept,
        dropped=dropped,
        dropped_samples=facts.places,
        lengths=lengths.summarize(facts.length_table, prompt.max_length, prompt.overlong),
        findings=findings,
        warnings=[str(finding) for finding in findings if finding.severity == "warning"],
        **facts.model_dump(include={"source", "format", "format_reason", "rows", "bad_rows", "languages", "duplicates"}),
    )


def _key(recipe: Recipe, tokenizer: Any, read: Reading) -> str:
    data: Data = recipe.data
    settings = data.model_dump(mode="json", exclude=_DOES_NOT_MATTER)
    seed = recipe.train.seed if data.max_rows is not None else None
    rules = [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map]
    versions = [_FORMAT, version("transformers"), version("tokenizers")]
    return _hash([versions, read.source.identity(), settings, seed, recipe.prompt.learn, rules])


def _hash(parts: list[Any]) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(json.dumps(parts, default=str).encode("utf-8", "surrogatepass"))


def _write(recipe: Recipe, key: str, side: Split, other: Split | None, findings: list[Finding], on_progress: Progress | None) -> None:
    """Cut and divide whole samples into the two sides of a training."""
    import numpy as np

    data, prompt = recipe.data, recipe.prompt
    cut = samples.cuts(side.numbers.lengths, side.numbers.firsts, prompt)
    if other:
        sides = [(side, cut), (other, samples.cuts(other.numbers.lengths, other.numbers.firsts, prompt))]
    else:
        fraction = data.validation if isinstance(data.validation, float) else 0.0
        kept, held = cut > 0, np.zeros(len(cut), dtype=bool)
        held[kept] = split.for_validation(side.numbers.groups[kept], fraction, recipe.train.seed)
        sides = [(side, np.where(held, 0, cut)), (side, np.where(held, cut, 0))]
    with cache.making(key) as staged:
        written = [_write_side(staged / name, *part, recipe, on_progress) for name, part in zip((_TRAIN, _VALIDATION), sides, strict=True)]
        train, validation = written
        report = report_of(recipe, side.facts, findings)
        report.kept, report.train_samples, report.validation_samples = train.samples + validation.samples, train.samples, validation.samples
        report.tokens, report.learned_tokens = train.tokens, train.learned
        if data.validation and not validation.samples:
            words = "no validation: there are fewer than two groups of conversations to divide"
            report.findings.append(Finding("warning", "data.validation", words, "More conversations, or a validation split of its own."))
            report.warnings.append(words)
        told = {"report": report.model_dump(mode="json"), "fingerprint": _hash([train.digest, validation.digest])}
        (staged / _TOLD).write_text(json.dumps(told), encoding="utf-8")


def _write_side(path: Path, side: Split, cut: np.ndarray, recipe: Recipe, on_progress: Progress | None) -> store.Written:
    tokens = store.cut_tokens(side.path, cut)
    if on_progress:
        on_progress("write", 0, len(cut))
    written = store.write_training(path, store.in_blocks(tokens, recipe.prompt.max_length) if recipe.prompt.overlong == "split" else tokens)
    if on_progress:
        on_progress("write", len(cut), len(cut))
    return written
