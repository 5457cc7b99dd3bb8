"""Step 2: what to learn from, the format that was found in it, and its first rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.widgets.paths import PathSuggester
from tui_ft.tui.wizard.step import Shown, Step, waiting

if TYPE_CHECKING:
    from tui_ft.data.preview import Preview

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".arrow", ".gz")
_CELL = 400


class DatasetStep(Step):
    TITLE = "Dataset"
    LEAD = "Name the data to learn from; its format is found by looking at it."
    HUB = "dataset"
    KEYS = (
        "data.source",
        "data.config",
        "data.split",
        "data.format",
        "data.columns",
        "data.oasst",
        "data.max_bad_rows",
        "data.validation",
        "data.max_rows",
    )

    def compose(self) -> ComposeResult:
        yield self.field("data.source", "a Hub id, a file (jsonl, json, csv, parquet, txt) or a folder", PathSuggester(ENDINGS))
        yield self.field("data.config", "the only one")
        yield self.field("data.split")
        yield self.field("data.format")
        yield self.field("data.columns", "found by looking, or output: answer")
        yield self.field("data.oasst")
        yield self.field("data.validation")
        yield self.field("data.max_rows", "all of them")
        yield self.field("data.max_bad_rows")
        yield Static("", id="dataset-found", classes="found", markup=False)
        yield Shown("First rows", "dataset-rows")

    def irrelevant(self) -> set[str]:
        seen = self.backstage.preview.value
        chosen = self.draft.value("data.format")
        trees = chosen == "oasst" or (chosen == "auto" and seen is not None and seen.format == "oasst")
        local = str(self.draft.value("data.source")).startswith(("/", ".", "~", "builtin:"))
        return (set() if trees else {"data.oasst"}) | ({"data.config"} if local else set())

    def show(self) -> None:
        named = "data.source" not in self.draft.problems
        found, seen = self.backstage.preview, self.backstage.preview.value
        note = waiting(found, "the data") if named else Content.styled("Choose a dataset first.", MUTED)
        self.query_one("#dataset-found", Static).update(note or _described(seen, found.busy))
        self.query_one("#dataset-rows", Shown).update(_rows(seen) if seen else Content(""))
        self.query_one("#dataset-rows", Shown).display = seen is not None
        for field in self.query("Field#field-data-oasst"):
            field.display = "data.oasst" not in self.irrelevant()


def _described(seen: Preview | None, busy: bool) -> Content:
    if seen is None:
        return Content("")
    among = "" if seen.sampled is None else " of the first ones"
    lines = [
        Content.assemble(
            ("✓ ", "$success"),
            (seen.format, "bold"),
            content(f"  {seen.format_reason}", MUTED),
            ("  (looking again …)" if busy else "", MUTED),
        ),
        Content.assemble(f"  {seen.rows:,} rows{among}, {seen.kept:,} samples kept", _dropped(seen)),
    ]
    parts = ", ".join(f"{part}: {column}" for part, column in seen.column_parts.items() if part != column)
    if parts:
        lines.append(Content.assemble(("  columns  ", MUTED), line(parts)))
    lines += [content(f"! {warning}", "$text-warning") for warning in seen.warnings]
    lines += [content(f"✗ {refusal}", "$text-error") for refusal in seen.refusals]
    return Content("\n").join(lines)


def _dropped(seen: Preview) -> Content:
    """How many fell away, and why."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in seen.dropped.items() if count)
    return content(f"  left out: {reasons}", MUTED) if reasons else Content("")


def _rows(seen: Preview) -> Content:
    """Each row as its columns, a line each; the first row's place in the file comes first."""
    parts: list[Content] = []
    for number, row in enumerate(seen.rows_shown, 1):
        parts.append(Content.styled(f"row {number}", "bold"))
        parts += [Content.assemble(line(f"  {name}  ", style="$primary"), line(value, _CELL)) for name, value in row.items()]
    return Content("\n").join(parts)
