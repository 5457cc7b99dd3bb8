"""Finding a model or a dataset by name, over the screen that wants it: what is on this machine first, then the Hub's."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker

from tui_ft import units
from tui_ft.hub.details import ModelDetails
from tui_ft.hub.search import Choices, Hit, Hits
from tui_ft.tui import hub, keys
from tui_ft.tui.screen import Modal
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.widgets.model_details import described
from tui_ft.tui.widgets.options import Options


class HubSearch(Modal[str | None]):
    """Gives the chosen repository's id, None where it was left. Typing searches; up and down choose meanwhile; enter takes."""

    CSS_PATH = Path(__file__).with_name("hub.tcss")
    GROUP = "search"
    BINDINGS = keys.bindings("search")  # type: ignore[assignment]
    PAUSE: ClassVar[float] = 0.4
    """Seconds without a key before a process is started that searches, or looks at what is highlighted."""

    def __init__(self, kind: Literal["model", "dataset"], text: str = "") -> None:
        """
        Args:
            kind: what is looked for.
            text: what the field holds at first.
        """
        super().__init__()
        self.kind = kind
        self.text = text
        self.hits: dict[str, Hit] = {}
        self.found: str | None = None
        """The text that the hits in sight were found by."""
        self._search_soon: Timer | None = None
        self._look_soon: Timer | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="hub") as box:
            box.border_title = "Models" if self.kind == "model" else "Datasets"
            box.border_subtitle = "type a name · ↑ ↓ choose · enter takes · esc leaves"
            yield Input(self.text, placeholder="a part of the name", compact=True)
            yield Static("", id="search-note", markup=False)
            yield Options(id="hits")
            yield Static("", id="search-details", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.search()

    @on(Input.Changed)
    def _typed(self) -> None:
        if self._search_soon:
            self._search_soon.stop()
        self._search_soon = self.set_timer(self.PAUSE, self.search)

    @work(exclusive=True, group="search", exit_on_error=False)
    async def search(self) -> None:
        note = self.query_one("#search-note", Static)
        note.update(Content.styled("searching …", MUTED))
        text = self.query_one(Input).value
        answer = await hub.search(self.kind, text)
        if answer.error:
            note.update(content(f"✗ {answer.error}\n→ {answer.hint}", "$text-error"))
            return
        self.found = text
        self._show_hits(answer.value)

    def _show_hits(self, found: Hits) -> None:
        note, listed = self.query_one("#search-note", Static), self.query_one("#hits", Options)
        self.hits = {hit.name: hit for hit in found.hits}
        listed.offer([Option(_row(hit), hit.name) for hit in self.hits.values()])
        if found.offline:
            note.update(content(f"! Only what is on this machine: {found.offline}", "$text-warning"))
        else:
            here = sum(hit.cached_bytes is not None for hit in found.hits)
            note.update(Content.styled(f"{len(found.hits)} found, {here} of them on this machine" if found.hits else "nothing of that name", MUTED))
        if not found.hits:
            self.query_one("#search-details", Static).update("")

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        hit = self.hits.get(event.option_id or "")
        if hit is None:
            return
        self.query_one("#search-details", Static).update(_about(hit))
        if self._look_soon:
            self._look_soon.stop()
        self._look_soon = self.set_timer(self.PAUSE, lambda: self.look(hit))

    @work(exclusive=True, group="look", exit_on_error=False)
    async def look(self, hit: Hit) -> None:
        """More on the highlighted one: for a model its metadata, for a dataset what it is divided into."""
        answer = await (hub.model_details(hit.name) if self.kind == "model" else hub.dataset_choices(hit.name))
        if answer.error:
            more = content(f"! {answer.error}" + (f"\n→ {answer.hint}" if answer.hint else ""), "$text-warning")
        else:
            more = described(answer.value) if isinstance(answer.value, ModelDetails) else _divisions(answer.value)
        if self.query_one("#hits", Options).selected == hit.name:
            self.query_one("#search-details", Static).update(Content("\n").join([_about(hit), more]))

    def action_move(self, by: int) -> None:
        listed = self.query_one("#hits", Options)
        if by > 0:
            listed.action_cursor_down()
        else:
            listed.action_cursor_up()

    def action_take(self) -> None:
        """Only from the hits of what is typed now: those of an earlier text are about to be replaced."""
        chosen = self.query_one("#hits", Options).selected
        if chosen and self.query_one(Input).value == self.found:
            self.dismiss(chosen)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_take()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_take()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        if worker_failed := getattr(self.app, "worker_failed", None):
            worker_failed(event)


def _row(hit: Hit) -> Content:
    """One line: whether it is here, its name, its size."""
    here = hit.cached_bytes is not None
    size = units.count(hit.parameters) if hit.parameters else units.size(hit.bytes) if hit.bytes else ""
    closed = "  gated" if hit.gated else "  private" if hit.private else ""
    known = "  ".join(part for part in (size, f"{units.size(hit.cached_bytes)} here" if here else "") if part)
    return Content.assemble(
        ("● " if here else "  ", "$accent"), line(hit.name, 60, "bold"), (f"  {known}" if known else "", MUTED), (closed, "$text-warning")
    )


def _about(hit: Hit) -> Content:
    """What the list itself knows of a hit."""
    known = [f"{units.count(hit.downloads)} downloads a month" if hit.downloads is not None else "", f"changed {hit.changed}" if hit.changed else ""]
    head = line(", ".join(part for part in known if part), style=MUTED)
    return Content.assemble(head, "\n", line(hit.about, 240)) if hit.about else head


def _divisions(found: Choices) -> Content:
    """The first configurations with their splits."""
    shown = [f"{config}: {', '.join(splits[:6])}" for config, splits in list(found.configs.items())[:4]]
    more = len(found.configs) - len(shown)
    return content("\n".join([*shown, *([f"and {more} more configurations"] if more > 0 else [])]), MUTED)
