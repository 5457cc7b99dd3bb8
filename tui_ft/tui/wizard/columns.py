"""Which column plays which part, chosen by hand, with the first row as the conversation that results."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Button, Label, Select, Static
from textual.worker import Worker

from tui_ft.data.formats import PARTS, REQUIRED
from tui_ft.recipe import Recipe
from tui_ft.tui import child
from tui_ft.tui.screen import Modal
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.widgets.choice import Choice
from tui_ft.tui.widgets.token_view import CLOSE, OPEN
from tui_ft.tui.wizard.finding import Finding

Mapping = tuple[str, dict[str, str]]
"""A format, and the column of each part."""
_ROWS = 20
"""So many rows are read for the conversation shown: the child's start costs more."""
_SHOWN = 3000


class ColumnsScreen(Modal[Mapping | None]):
    """Gives the mapping that was taken; None where it was left, so that nothing changes."""

    CSS_PATH = Path(__file__).with_name("columns.tcss")
    BINDINGS = [Binding("escape", "dismiss(None)", "Leave")]  # noqa: RUF012
    PAUSE: ClassVar[float] = 0.4
    """Seconds without a change before a process is started that renders the row."""

    def __init__(self, recipe: Recipe, columns: list[str], rows: list[dict[str, str]], found: Finding[Any]) -> None:
        """
        Args:
            recipe: what the mapping is for, with absolute paths.
            columns, rows: of the dataset, the rows' cells as text. Foreign text.
            found: the newest preview, or the error in its place: what it says of the format is where the person begins.
        """
        super().__init__()
        self.recipe = recipe
        self.columns = columns
        self.rows = rows
        guessed = getattr(found.value, "format", "") or str(found.details.get("format") or "")
        self.format = recipe.data.format if recipe.data.format != "auto" else guessed if guessed in PARTS else "messages"
        self.mapping: dict[str, str] = {**(getattr(found.value, "column_parts", {})), **recipe.data.columns}
        self._soon: Timer | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="columns") as box:
            box.border_title = "Which column plays which part?"
            box.border_subtitle = "tab goes on · enter opens a list · esc leaves"
            yield Choice(tuple(PARTS), self.format, id="columns-format")
            yield VerticalScroll(id="columns-parts", can_focus=False)
            yield Static("", id="columns-note", markup=False)
            with VerticalScroll(id="columns-result"):
                yield Static("", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Use this mapping", id="take", compact=True, variant="primary")
                yield Button("Leave it", id="leave", compact=True)

    async def on_mount(self) -> None:
        self.query_one("#columns-result").border_title = "The first row as a conversation"
        await self._list_parts()
        self.query_one(Choice).focus()

    async def _list_parts(self) -> None:
        """A line for each part of the chosen format: its name, and the column that plays it."""
        place = self.query_one("#columns-parts", VerticalScroll)
        await place.remove_children()
        await place.mount_all([self._part(part) for part in PARTS[self.format]])
        self._changed()

    def _part(self, part: str) -> Horizontal:
        required = part in REQUIRED[self.format]
        chosen = self.mapping.get(part, part if part in self.columns else "")
        at = self.columns.index(chosen) if chosen in self.columns else Select.NULL
        shown = [(self._option(column), number) for number, column in enumerate(self.columns)]
        select = Select(shown, value=at, prompt="choose a column" if required else "none", compact=True, id=f"part-{part}")
        return Horizontal(Label(f"{part}{' *' if required else ''}"), select)

    def _option(self, column: str) -> Content:
        sample = self.rows[0].get(column, "") if self.rows else ""
        return Content.assemble(line(column, 30, "bold"), line(f"  {sample}" if sample else "", 60, MUTED))

    @on(Choice.Changed)
    async def _format_chosen(self, event: Choice.Changed) -> None:
        self.format = event.value
        await self._list_parts()

    @on(Select.Changed)
    def _column_chosen(self, event: Select.Changed) -> None:
        part = (event.select.id or "").removeprefix("part-")
        if isinstance(event.value, int):
            self.mapping[part] = self.columns[event.value]
        else:
            self.mapping.pop(part, None)
        self._changed()

    def chosen(self) -> Mapping:
        """The mapping as it stands on the screen."""
        columns: dict[str, str] = {}
        for select in self.query(Select):
            if isinstance(select.value, int):
                columns[(select.id or "").removeprefix("part-")] = self.columns[select.value]
        return self.format, columns

    def _missing(self) -> list[str]:
        return [part for part in REQUIRED[self.format] if part not in self.chosen()[1]]

    def _changed(self) -> None:
        missing = self._missing()
        self.query_one("#take", Button).disabled = bool(missing)
        if self._soon:
            self._soon.stop()
        if missing:
            self._tell(Content.styled(f"Still to choose: {', '.join(missing)}", "$text-warning"))
        else:
            self._tell(Content.styled("rendering the first row …", MUTED))
            self._soon = self.set_timer(self.PAUSE, self._render_row)

    @work(exclusive=True, group="row", exit_on_error=False)
    async def _render_row(self) -> None:
        name, columns = self.chosen()
        data = {**self.recipe.data.model_dump(), "format": name, "columns": columns, "max_rows": _ROWS, "validation": 0.0, "languages": []}
        asked = self.recipe.model_copy(update={"data": self.recipe.data.__class__.model_validate(data)})
        answer = await child.ask("tui_ft.data.preview", "-n", "1", stdin=asked.model_dump_json(), seconds=120)
        if not self.is_mounted:
            return
        if answer.error:
            self._tell(content(f"✗ {answer.error}" + (f"\n→ {answer.hint}" if answer.hint else ""), "$text-error"))
            return
        from tui_ft.data.preview import Preview

        seen = Preview.model_validate(answer.value)
        told = f"✓ {100 * seen.format_confidence:.0f} % of the first rows fit"
        self._tell(content(told, "$text-success" if seen.samples else "$text-warning"), _conversation(seen.samples[0].tokens if seen.samples else []))

    def _tell(self, note: Content, result: Content | None = None) -> None:
        self.query_one("#columns-note", Static).update(note)
        if result is not None:
            self.query_one("#columns-result Static", Static).update(result)

    @on(Button.Pressed, "#take")
    def _take(self) -> None:
        self.dismiss(self.chosen())

    @on(Button.Pressed, "#leave")
    def _leave(self) -> None:
        self.dismiss(None)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        if worker_failed := getattr(self.app, "worker_failed", None):
            worker_failed(event)


def _conversation(tokens: list) -> Content:  # type: ignore[type-arg]
    """The rendered text with what is learned in brackets, as at the step Prompt; that it may be long is no matter here."""
    parts: list[Content] = []
    inside, length = False, 0
    for token in tokens:
        if token.learned != inside:
            parts.append(Content.styled(OPEN if token.learned else CLOSE, "bold $success"))
            inside = token.learned
        parts.append(content(token.text[:_SHOWN], "underline $success" if token.learned else MUTED))
        length += len(token.text)
        if length > _SHOWN:
            parts.append(Content.styled(" …", MUTED))
            break
    return Content("").join([*parts, *([Content.styled(CLOSE, "bold $success")] if inside else [])]) if parts else Content.styled("no sample", MUTED)
