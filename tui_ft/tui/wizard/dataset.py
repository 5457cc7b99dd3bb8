"""Step 2: what to learn from, the format that was found in it, its first rows, and which rows fall away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList, Static

from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.widgets.paths import PathSuggester
from tui_ft.tui.wizard.backstage import Backstage
from tui_ft.tui.wizard.offers import ENDINGS, Choices, Offers, question_of
from tui_ft.tui.wizard.step import Shown, Step, again, findings_of, waiting

if TYPE_CHECKING:
    from tui_ft.data.preview import Preview, TreeStatistics

_CELL = 400
_MOST_LANGUAGES = 6


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
        yield Offers()
        yield Choices()
        yield self.field("data.config", "the only one")
        yield self.field("data.split")
        yield self.field("data.format")
        yield self.field("data.columns", "found by looking, or output: answer; c maps them")
        yield self.field("data.oasst")
        yield self.field("data.validation")
        yield self.field("data.max_rows", "all of them")
        yield self.field("data.max_bad_rows")
        yield Static("", id="dataset-found", classes="found", markup=False)
        yield Shown("Rows left out", "dataset-dropped")
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
        self.query_one(Offers).display = not named
        self.query_one(Choices).show(question_of(found) if named else None)
        self.query_one("#dataset-found", Static).update(self._found() if named else Content.styled("Choose a dataset first.", MUTED))
        for box, shown in (("#dataset-rows", _rows(self._first_rows())), ("#dataset-dropped", _dropped(seen) if seen else Content(""))):
            self.query_one(box, Shown).update(shown)
            self.query_one(box, Shown).display = named and bool(shown)
        for field in self.query("Field#field-data-oasst"):
            field.display = "data.oasst" not in self.irrelevant()

    def show_work(self) -> None:
        self.query_one("#dataset-found", Static).update(self._found())

    def _found(self) -> Content:
        found, seen = self.backstage.preview, self.backstage.preview.value
        note = waiting(found, "the data")
        if seen is None:
            return note or Content("")
        return Content("\n").join([*([note] if note else []), *_described(seen), *filter(None, [again(self.backstage)])])

    def _first_rows(self) -> list[dict[str, str]]:
        """Also of data whose format is not understood: they are what a person needs to see then."""
        found = self.backstage.preview
        return found.value.rows_shown if found.value else known_columns(self.backstage)[1]

    @on(OptionList.OptionSelected, "Offers Options")
    def _offered(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_id:
            self._put({"data.source": event.option_id, "data.config": None, "data.columns": {}, "data.format": "auto"})
            self.wizard.to_the_way_on()

    @on(Choices.Chosen)
    def _answered(self, event: Choices.Chosen) -> None:
        event.stop()
        if event.part in ("format", "config", "split"):
            self._put({f"data.{event.part}": event.choice})
        else:
            self._put({"data.columns": {**self.draft.value("data.columns"), event.part: event.choice}})
        self.wizard.to_the_way_on()

    def map_columns(self) -> None:
        """The columns by hand, on a screen of their own; nothing changes unless it is taken."""
        from tui_ft.tui.wizard.columns import ColumnsScreen

        def take(mapping: tuple[str, dict[str, str]] | None) -> None:
            if mapping is not None:
                self._put({"data.format": mapping[0], "data.columns": mapping[1]})

        recipe = self.wizard.recipe_now()
        if recipe is not None:
            columns, rows = known_columns(self.backstage)
            self.app.push_screen(ColumnsScreen(recipe, columns, rows, self.backstage.preview), take)

    def _put(self, values: dict[str, Any]) -> None:
        """Take what was chosen, and look anew."""
        for key, value in values.items():
            self.draft.put(key, value)
        self.wizard.touched = True
        self.refresh_fields()
        self.wizard.show()
        self.wizard.refresh_soon()


def known_columns(backstage: Backstage) -> tuple[list[str], list[dict[str, str]]]:
    """The dataset's columns and first rows: from its preview, else from the error that came in its place. Foreign text."""
    found = backstage.preview
    if found.value is not None:
        return found.value.columns, found.value.rows_shown
    columns, rows = found.details.get("columns"), found.details.get("rows_shown")
    shown = [{str(key): str(value) for key, value in row.items()} for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [str(column) for column in columns] if isinstance(columns, list) else [], shown


def _described(seen: Preview) -> list[Content]:
    among = f"the first {seen.sampled:,} rows" if seen.sampled is not None else f"all {seen.rows:,} rows"
    fit = f"  {100 * seen.format_confidence:.0f} % of the first rows fit" if seen.format_confidence < 1 else "  every one of the first rows fits"
    out = sum(seen.dropped.values())
    lines = [
        Content.assemble(("✓ ", "$success"), (seen.format, "bold"), (fit, "$text-warning" if seen.format_confidence < 0.9 else "")),
        content(f"  because {seen.format_reason}", MUTED),
        Content.assemble(f"  {among}: {seen.kept:,} samples kept", (f", {out:,} left out" if out else "", MUTED)),
    ]
    parts = ", ".join(f"{part}: {column}" for part, column in seen.column_parts.items() if part != column)
    if parts:
        lines.append(Content.assemble(("  columns  ", MUTED), line(parts)))
    if seen.trees:
        lines += _trees(seen.trees)
    return [*lines, *findings_of(seen, "data")]


def _trees(trees: TreeStatistics) -> list[Content]:
    lines = [content(f"  {trees.trees:,} trees of {trees.messages:,} messages, {trees.mean_depth:.1f} deep on average, at most {trees.max_depth}")]
    for what, counts in (("languages", trees.languages), ("states", trees.states)):
        if counts:
            ordered = sorted(counts.items(), key=lambda pair: -pair[1])
            rest = f", and {len(ordered) - _MOST_LANGUAGES} more" if len(ordered) > _MOST_LANGUAGES else ""
            lines.append(content(f"  {what}: {', '.join(f'{name} {count:,}' for name, count in ordered[:_MOST_LANGUAGES])}{rest}", MUTED))
    return lines


def _dropped(seen: Preview) -> Content:
    """What was left out by reason, most first, with the places of the first ones; other languages have samples at the step after."""
    parts: list[Content] = []
    for reason, count in sorted(seen.dropped.items(), key=lambda pair: -pair[1]):
        if count:
            parts.append(Content.assemble((f"{count:,} × ", "bold"), line(reason, style="bold")))
            parts += [line(f"  {place}", _CELL, MUTED) for place in seen.dropped_samples.get(reason, []) if "language" not in reason]
    return Content("\n").join(parts)


def _rows(rows: list[dict[str, str]]) -> Content:
    """Each row as its columns, a line each."""
    parts: list[Content] = []
    for number, row in enumerate(rows, 1):
        parts.append(Content.styled(f"row {number}", "bold"))
        parts += [Content.assemble(line(f"  {name}  ", style="$primary"), line(value, _CELL)) for name, value in row.items()]
    return Content("\n").join(parts)
