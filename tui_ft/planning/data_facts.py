"""What is known of a recipe's data before it is trained on: from the preview, made in a child process."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from tui_ft.errors import ConfigError, Problem
from tui_ft.planning import child
from tui_ft.recipe.schema import Recipe
from tui_ft.text import one_line, visible

TIMEOUT = 300.0  # seconds: a dataset of the Hub is fetched on the way, and a slow network must not hold a start for ever


@dataclass(frozen=True)
class DataFacts:
    rows: int | None
    """Training samples, validation taken off; None where they were not all counted."""
    refusals: tuple[str, ...]
    """Why a run on this data would fail before its first step; empty: it would start."""

    @classmethod
    def of(cls, recipe: Recipe, kept: int, sampled: int | None, refusals: Iterable[str]) -> DataFacts:
        """From what a preview of `recipe` counted."""
        share = recipe.data.validation if isinstance(recipe.data.validation, float) else 0.0
        return cls(max(1, round(kept * (1 - share))) if sampled is None else None, tuple(visible(refusal) for refusal in refusals))

    def check(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            ConfigError: every refusal.
        """
        if self.refusals:
            raise ConfigError([Problem("data", refusal) for refusal in self.refusals])


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
    return DataFacts.of(recipe, found["kept"], found["sampled"], found["refusals"])
