"""Step 3: which languages are kept, with how much of each there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui_ft.text import one_line
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.widgets.options import Options
from tui_ft.tui.wizard.step import Shown, Step, again, waiting

if TYPE_CHECKING:
    from tui_ft.data.preview import Preview

_BAR = 20


class Languages(Options):
    """Each row is switched on and off by space or enter."""

    BINDINGS = [Binding("space", "select", "Switch", show=False)]  # noqa: RUF012


class LanguageStep(Step):
    TITLE = "Language"
    LEAD = "Choose the languages to keep; with none chosen, all are kept."
    KEYS = ("data.languages", "data.language_column")

    def compose(self) -> ComposeResult:
        yield self.field("data.languages", "all; or codes such as en, es")
        yield self.field("data.language_column", "auto, a column's name, or detect")
        yield Static("", id="language-found", classes="found", markup=False)
        yield Languages(id="languages")
        yield Shown("Samples of what goes", "language-dropped")

    def on_mount(self) -> None:
        self._shown: dict[str, tuple[int, bool]] = {}
        super().on_mount()

    def show(self) -> None:
        seen = self.backstage.preview.value
        if seen is not None:
            self._list(seen.languages)
        self.query_one("#language-found", Static).update(self._found())
        gone = [(reason, text) for reason, texts in (seen.dropped_samples if seen else {}).items() if "language" in reason for text in texts]
        box = self.query_one("#language-dropped", Shown)
        box.display = bool(gone)
        box.update(Content("\n").join([line(f"− {text}", 300) for _, text in gone]))

    def show_work(self) -> None:
        self.query_one("#language-found", Static).update(self._found())

    def _found(self) -> Content:
        found, seen = self.backstage.preview, self.backstage.preview.value
        told = [waiting(found, "the data"), self._summary(seen) if seen is not None else None, again(self.backstage)]
        return Content("\n").join([part for part in told if part])

    def _summary(self, seen: Preview) -> Content:
        """How many are kept as the choice stands now, of how many, and what tells a conversation's language."""
        from tui_ft.data.language import fold

        if not seen.languages:
            return Content.styled("No language is known: the data names none. Set Language column to detect to read the text.", MUTED)
        chosen = self._chosen()
        kept = sum(count for code, count in seen.languages.items() if not chosen or fold(code) in chosen)
        whole = sum(seen.languages.values())
        among = f" in the first {seen.sampled:,} rows" if seen.sampled is not None else ""
        by = {"": "", "detected": "read from the text, some may be wrong"}.get(seen.language_source, f"told by {one_line(seen.language_source, 60)}")
        return Content.assemble(
            (f"{kept:,}", "bold"), f" of {whole:,} conversations{among} are kept, {whole - kept:,} go", content(f"\n{by}" if by else "", MUTED)
        )

    def _list(self, counts: dict[str, int]) -> None:
        """Rows by count; rebuilt only where something is new, so that the cursor stays."""
        from tui_ft.data.language import fold

        chosen = self._chosen()
        merged = {**counts, **{code: 0 for code in chosen if code not in {fold(known) for known in counts}}}
        rows = {code: (merged[code], fold(code) in chosen) for code in sorted(merged, key=lambda code: -merged[code])}
        if rows == self._shown:
            return
        self._shown = rows
        most, whole = max(merged.values(), default=0) or 1, sum(merged.values())
        self.query_one(Languages).offer([Option(_row(code, count, on, most, whole), code) for code, (count, on) in rows.items()])

    def _chosen(self) -> set[str]:
        from tui_ft.data.language import fold

        value = self.draft.value("data.languages")
        return {fold(code) for code in value} if isinstance(value, list) else set()

    @on(OptionList.OptionSelected)
    def _toggled(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        from tui_ft.data.language import fold

        chosen = self._chosen() ^ {fold(event.option_id or "")}
        self.draft.put("data.languages", [code for code in dict.fromkeys(map(fold, self._shown)) if code in chosen])
        self.wizard.touched = True
        self.refresh_fields()
        self.show()
        self.wizard.refresh_soon()


def _row(code: str, count: int, chosen: bool, most: int, whole: int) -> Content:
    cells = round(_BAR * count / most)
    share = f"{100 * count / whole:6.1f} %" if whole else ""
    return Content.assemble(
        ("● " if chosen else "○ ", "$accent"),
        line(f"{code:<9}", 9, "bold" if chosen else ""),
        f"{count:>9,}  ",
        ("█" * cells, "$primary"),
        ("░" * (_BAR - cells), "$foreground 12%"),
        (share, MUTED),
    )
