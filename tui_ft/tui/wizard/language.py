"""Step 3: which languages are kept, with how much of each there is."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import SelectionList, Static
from textual.widgets.selection_list import Selection

from tui_ft.tui import keys
from tui_ft.tui.text import content, line
from tui_ft.tui.wizard.step import Shown, Step, waiting

_BAR = 20


class Languages(SelectionList[str]):
    """Toggles with the keys of vi."""

    BINDINGS = keys.bindings("list")  # type: ignore[assignment]


class LanguageStep(Step):
    TITLE = "Language"
    LEAD = "Choose the languages to keep; with none chosen, all are kept."
    KEYS = ("data.languages", "data.language_column")

    def compose(self) -> ComposeResult:
        yield self.field("data.languages", "all; or codes such as en, es")
        yield self.field("data.language_column", "auto, a column's name, or detect")
        yield Static("", id="language-found", classes="found", markup=False)
        yield Languages(id="languages", compact=True)
        yield Shown("Samples of what goes", "language-dropped")

    def on_mount(self) -> None:
        self._shown: dict[str, int] = {}
        super().on_mount()

    def show(self) -> None:
        found, seen = self.backstage.preview, self.backstage.preview.value
        note = waiting(found, "the data")
        if seen is not None:
            self._list(seen.languages)
            note = self._summary(seen.languages, found.busy)
        self.query_one("#language-found", Static).update(note or Content(""))
        gone = [(reason, text) for reason, texts in (seen.dropped_samples if seen else {}).items() if "language" in reason for text in texts]
        box = self.query_one("#language-dropped", Shown)
        box.display = bool(gone)
        box.update(Content("\n").join([line(f"− {text}", 300) for _, text in gone]))

    def _summary(self, counts: dict[str, int], busy: bool) -> Content:
        from tui_ft.data.language import fold

        if not counts:
            return Content.styled("No language is known: the data names none. Set Language column to detect to read the text.", "$text-muted")
        chosen = {fold(code) for code in self.draft.value("data.languages")}
        kept = sum(count for code, count in counts.items() if not chosen or fold(code) in chosen)
        whole = sum(counts.values())
        again = "  (counting again …)" if busy else ""
        return Content.assemble((f"{kept:,}", "bold"), f" of {whole:,} conversations are kept, {whole - kept:,} go", (again, "$text-muted"))

    def _list(self, counts: dict[str, int]) -> None:
        """Rows by count; rebuilt only where the counts are new, so that the cursor stays."""
        from tui_ft.data.language import fold

        listed = self.query_one(Languages)
        chosen = {fold(code) for code in self.draft.value("data.languages")} if "data.languages" not in self.draft.problems else set()
        merged = {**counts, **{code: 0 for code in chosen if code not in {fold(known) for known in counts}}}
        with self.prevent(SelectionList.SelectedChanged):
            if merged != self._shown:
                self._shown = merged
                listed.clear_options()
                most = max(merged.values(), default=1) or 1
                listed.add_options(
                    [
                        Selection(_row(code, count, most, sum(merged.values())), code)
                        for code, count in sorted(merged.items(), key=lambda item: -item[1])
                    ]
                )
                listed.highlighted = 0 if merged else None
            for code in merged:
                (listed.select if fold(code) in chosen else listed.deselect)(code)

    @on(SelectionList.SelectedChanged)
    def _toggled(self, event: SelectionList.SelectedChanged[str]) -> None:
        event.stop()
        order = list(self._shown)
        chosen = sorted(event.selection_list.selected, key=order.index)
        if set(chosen) != set(self.draft.value("data.languages") or []):
            self.draft.put("data.languages", chosen)
            self.wizard.touched = True
            self.refresh_fields()
            self.wizard.refresh_soon()


def _row(code: str, count: int, most: int, whole: int) -> Content:
    cells = round(_BAR * count / most)
    share = f"{100 * count / whole:5.1f} %" if whole else ""
    return Content.assemble(
        line(f"{code:<9}", 9),
        f"{count:>9,}  ",
        ("█" * cells, "$primary"),
        ("░" * (_BAR - cells), "$foreground 12%"),
        content(f" {share}", "$text-muted"),
    )
