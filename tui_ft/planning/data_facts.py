"""What is known of a recipe's data before it is trained on: from the preview, made in a child process."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tui_ft.data.lengths import Entry
from tui_ft.findings import Finding
from tui_ft.planning import child
from tui_ft.recipe.schema import Recipe
from tui_ft.text import one_line, visible

TIMEOUT = 300.0  # seconds: a dataset of the Hub is fetched on the way, and a slow network must not hold a start for ever

QUANTILES = 50
"""Enough for a mean within one percent, few enough that a plan can ask for many batches' padding."""


@dataclass(frozen=True)
class DataFacts:
    rows: int | None
    """Training samples, validation taken off; None where they were not all counted."""
    findings: tuple[Finding, ...]
    """Everything to know before a start; while there is an error a run would be refused."""
    longest: int | None = None
    """Tokens of the longest sample as it trains or is evaluated; None where they were not all counted."""
    lengths: tuple[int, ...] = ()
    """Tokens of samples as they train, ascending and spread evenly over all of them: their quantiles. Empty where nothing is known."""

    @classmethod
    def of(cls, recipe: Recipe, kept: int, sampled: int | None, findings: Iterable[Finding], table: Sequence[Entry] = ()) -> DataFacts:
        """From what a preview of `recipe` counted; `table` is its table of lengths before cutting."""
        named = isinstance(recipe.data.validation, str)  # a split of its own, in which nobody has looked for the longest sample
        share = recipe.data.validation if isinstance(recipe.data.validation, float) else 0.0
        rows = max(1, round(kept * (1 - share))) if sampled is None else None
        ascending = _as_they_train(recipe, table)
        longest = max((length for length, _ in ascending), default=None) if sampled is None and not named else None
        return cls(rows, tuple(findings), longest, _quantiles(ascending))

    @property
    def mean(self) -> float | None:
        """Tokens of a sample on average, within one percent; None where nothing is known."""
        return sum(self.lengths) / len(self.lengths) if self.lengths else None

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]


def _as_they_train(recipe: Recipe, table: Sequence[Entry]) -> list[tuple[int, int]]:
    """(tokens, samples) after cutting, ascending."""
    most, overlong = recipe.prompt.max_length, recipe.prompt.overlong
    if overlong == "split":
        blocks, rest = divmod(sum(length * count for length, _, count in table), most)
        return [pair for pair in ((rest, 1), (most, blocks)) if all(pair)]
    kept = [entry for entry in table if entry[0] <= most or (overlong == "truncate" and entry[1] < most)]
    return [(min(length, most), count) for length, _, count in kept if length and count]


def _quantiles(ascending: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    counted = list(accumulate(count for _, count in ascending))
    if not counted:
        return ()
    places = (int((number + 0.5) * counted[-1] / QUANTILES) for number in range(QUANTILES))
    return tuple(ascending[bisect_right(counted, place)][0] for place in places)


def look(recipe: Recipe, *, timeout: float = TIMEOUT, cancelled: threading.Event | None = None) -> DataFacts | None:
    """Read, render and tokenize a sample of the data as a run would; takes some seconds.

    None where `cancelled` was set while waiting, or after `timeout` seconds: the run will tell then.

    Raises:
        RequestError: the source, its columns, the tokenizer or the template cannot be used; says what to do.
        TuiFtError: the child failed.
    """
    subject = f"the dataset {one_line(recipe.data.source, 100)}"
    try:
        found = child.ask("tui_ft.data.preview", "-n", "0", stdin=recipe.model_dump_json(), subject=subject, timeout=timeout, cancelled=cancelled)
    except TimeoutError:
        return None
    if found is None:
        return None
    findings = [_harmless(finding) for finding in found["findings"]]
    return DataFacts.of(recipe, found["kept"], found["sampled"], findings, found["length_table"])


def _harmless(finding: dict[str, Any]) -> Finding:
    words = {key: visible(finding[key]) for key in ("where", "message", "hint")}
    return Finding(finding["severity"], **words, places=tuple(map(visible, finding["places"])))
