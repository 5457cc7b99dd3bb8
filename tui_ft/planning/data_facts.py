"""What is known of a recipe's data before it is trained on: from the preview, made in a child process."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tui_ft.findings import Finding
from tui_ft.planning import child
from tui_ft.recipe.schema import Recipe
from tui_ft.text import one_line, visible

TIMEOUT = 300.0  # seconds: a dataset of the Hub is fetched on the way, and a slow network must not hold a start for ever


@dataclass(frozen=True)
class DataFacts:
    rows: int | None
    """Training samples, validation taken off; None where they were not all counted."""
    findings: tuple[Finding, ...]
    """Everything to know before a start; while there is an error a run would be refused."""

    @classmethod
    def of(cls, recipe: Recipe, kept: int, sampled: int | None, findings: Iterable[Finding]) -> DataFacts:
        """From what a preview of `recipe` counted."""
        share = recipe.data.validation if isinstance(recipe.data.validation, float) else 0.0
        return cls(max(1, round(kept * (1 - share))) if sampled is None else None, tuple(findings))

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]


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
    return DataFacts.of(recipe, found["kept"], found["sampled"], findings)


def _harmless(finding: dict[str, Any]) -> Finding:
    words = {key: visible(finding[key]) for key in ("where", "message", "hint")}
    return Finding(finding["severity"], **words, places=tuple(map(visible, finding["places"])))
